"""A run's figures as metric families of prometheus-client; imported only where metrics are asked for."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from batchchat.observer import RunFigures, RunPlan

__all__ = ["LastRun", "MetricsState", "Seconds", "read_last_run", "render_metrics"]

_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_EXIT_CODE = "batchchat_last_run_exit_code"
_ENDED = "batchchat_last_run_end_timestamp_seconds"
_DURATION = "batchchat_last_run_duration_seconds"


class Seconds:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def copy(self) -> "Seconds":
        """The counts of this moment, for another thread."""
        other = Seconds()
        other._counts, other._sum = list(self._counts), self._sum
        return other

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Upper bounds, each with the number of durations up to it; and the sum of all."""
        below, buckets = 0, []
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        return buckets, self._sum


class LastRun(msgspec.Struct, frozen=True, kw_only=True):
    """How the latest run that came to its end did so; times in seconds, ``ended`` since 1970 in UTC."""

    exit_code: float
    ended: float
    duration_s: float


class MetricsState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a metrics file tells, at one moment.

    Attributes:
        run: Value of the label ``run`` on every series; what keeps the files of several jobs apart.
        about: Labels of ``batchchat_run_info``.
        plan: None before the input is checked.
        figures: None before the first request.
    """

    run: str
    about: Mapping[str, str]
    active: bool
    started: float
    plan: RunPlan | None
    figures: RunFigures | None
    prompt_s: Seconds
    first_delta_s: Seconds
    last_run: LastRun | None


def render_metrics(state: MetricsState) -> bytes:
    """The state in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(state))
    text: bytes = generate_latest(registry)
    return text


def read_last_run(text: str) -> LastRun | None:
    """What a metrics file tells of the latest run that came to its end; None where it tells nothing of the kind."""
    found = {}
    try:
        for family in text_string_to_metric_families(text):
            if family.name in (_EXIT_CODE, _ENDED, _DURATION) and family.samples:
                found[family.name] = family.samples[0].value
    except Exception:  # a file that somebody else wrote may hold anything, and the parser raises as many kinds
        return None
    if len(found) < 3:
        return None
    return LastRun(exit_code=found[_EXIT_CODE], ended=found[_ENDED], duration_s=found[_DURATION])


class _Families(Collector):
    def __init__(self, state: MetricsState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        info = GaugeMetricFamily("batchchat_run_info", "What the job is; always 1.", labels=["run", *state.about])
        info.add_metric([state.run, *state.about.values()], 1)
        yield info
        yield self._gauge("batchchat_run_active", "1 while a run is at work.", int(state.active))
        yield self._gauge("batchchat_run_start_timestamp_seconds", "When this run began.", state.started)
        if state.last_run is not None:
            yield self._gauge(_EXIT_CODE, "Exit code of the latest run that ended.", state.last_run.exit_code)
            yield self._gauge(_ENDED, "When the latest run that ended did so.", state.last_run.ended)
            yield self._gauge(_DURATION, "How long the latest run that ended took.", state.last_run.duration_s)
        if state.plan is not None:
            yield from self._of_plan(state.plan, state.figures)
        if state.figures is not None:
            yield from self._of_figures(state.figures)
        yield self._histogram(
            "batchchat_prompt_duration_seconds",
            "Time of a prompt from its first request, waits included.",
            state.prompt_s,
        )
        yield self._histogram(
            "batchchat_first_delta_seconds", "Time to the first piece of an answer.", state.first_delta_s
        )

    def _of_plan(self, plan: RunPlan, figures: RunFigures | None) -> Iterator[Metric]:
        concurrency = (figures.concurrency if figures else None) or plan.concurrency
        yield self._gauge("batchchat_concurrency", "Most prompts in flight at a time.", concurrency)
        yield self._gauge("batchchat_answered_before", "Prompts that had an answer when the run began.", plan.completed)
        if plan.total is not None:
            done = 0 if figures is None else figures.answered + figures.failed
            yield self._gauge("batchchat_input_prompts", "Prompts of the input.", plan.total)
            left = max(0, plan.total - plan.completed - done)
            yield self._gauge("batchchat_pending_prompts", "Prompts of the input that are left to do.", left)

    def _of_figures(self, figures: RunFigures) -> Iterator[Metric]:
        states = {
            "answered": figures.answered - figures.reused,
            "reused": figures.reused,
            "failed": figures.failed,
        }
        yield self._counter("batchchat_prompts", "Prompts finished by this run.", "state", states.items())
        yield self._counter("batchchat_attempts", "Attempts by what came of them.", "outcome", figures.attempts.items())
        yield self._counter(
            "batchchat_requests", "Requests let out, retries and nonces included.", None, [("", figures.requests)]
        )
        usage = figures.usage
        tokens = {"input": usage.input_tokens or 0, "output": usage.output_tokens or 0}
        yield self._counter("batchchat_tokens", "Tokens, estimated where none are told.", "direction", tokens.items())
        if figures.cost_usd is not None:
            yield self._counter(
                "batchchat_cost_usd",
                "Cost in US dollars, where every model has a price.",
                None,
                [("", figures.cost_usd)],
            )
        yield self._gauge("batchchat_in_flight", "Requests on the wire.", figures.in_flight)
        yield self._gauge("batchchat_held", "1 while nothing is let out, as in a pause.", int(bool(figures.holds)))

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, about, labels=["run"])
        family.add_metric([self._state.run], value)
        return family

    def _counter(self, name: str, about: str, label: str | None, values: Iterable[tuple[str, float]]) -> Metric:
        family = CounterMetricFamily(name, about, labels=["run"] if label is None else ["run", label])
        for value, count in values:
            family.add_metric([self._state.run] if label is None else [self._state.run, value], count)
        return family

    def _histogram(self, name: str, about: str, seconds: Seconds) -> Metric:
        family = HistogramMetricFamily(name, about, labels=["run"])
        buckets, total = seconds.buckets()
        family.add_metric([self._state.run], buckets=buckets, sum_value=total)
        return family
