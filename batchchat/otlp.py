"""A run told to a collector of OpenTelemetry: a span for every attempt, and metrics."""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.errors import ConfigError, ProviderError
from batchchat.observer import AttemptReport, RunPlan, RunReport
from batchchat.otlp_attributes import (
    Attributes,
    content_attributes,
    metric_attributes,
    service_attributes,
    span_attributes,
    whole,
)
from batchchat.records import Outcome, PromptId

__all__ = ["AttemptTelemetry", "OtlpTelemetry", "need_otlp"]

_MOST_MODELS = 50
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def need_otlp() -> None:
    """Checks that what speaks OTLP is installed; imports next to nothing.

    Raises:
        ConfigError: It is not.
    """
    try:
        for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name)
    except ModuleNotFoundError:
        raise ConfigError("--otel needs OpenTelemetry's SDK and exporter: pip install 'batchchat[otel]'") from None


class OtlpTelemetry:
    """An observer with an exporter in threads of its own; ``close`` sends what is left. Needs a running loop.

    Args:
        provider: The job's ``provider`` section.
        ids: Whether spans tell the ids of their prompts.
        content: Whether spans tell what was asked and answered.
        notice: Told with a sentence when telemetry cannot be sent.

    Raises:
        ConfigError: The extra is not installed, or OpenTelemetry does not take its variables.
    """

    def __init__(
        self, provider: Mapping[str, Any], *, ids: bool, content: bool, notice: Callable[[str, int], None]
    ) -> None:
        need_otlp()
        from opentelemetry.trace import SpanKind, Status, StatusCode

        from batchchat.otlp_pipeline import Pipeline

        try:
            self._pipeline = Pipeline(lambda sentence: notice(sentence, 0))
        except Exception as error:
            # The message may hold a variable's value, and that may be a secret.
            raise ConfigError(
                f"--otel: OpenTelemetry cannot work with its OTEL_* variables as they are ({type(error).__name__})"
            ) from None
        if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
            notice("OTEL_EXPORTER_OTLP_PROTOCOL is passed over: telemetry is sent as http/protobuf", 0)
        self._ids = ids
        self._content = content or os.environ.get(_CAPTURE, "").strip().lower() == "true"
        self._service, self._model = service_attributes(provider), str(provider.get("model") or "")
        self._models: set[str] = set()
        self._client, self._failed = SpanKind.CLIENT, Status(StatusCode.ERROR)
        self._began = time.monotonic()
        spans, metrics = self._pipeline.spans, self._pipeline.metrics
        self._tracer = None if spans is None else spans.get_tracer("batchchat")
        meter = None if metrics is None else metrics.get_meter("batchchat")
        self._meter = meter
        if meter is not None:
            self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s", "Duration of one attempt.")
            self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of one answer.")
            self._prompts = meter.create_counter("batchchat.prompts", "{prompt}", "Prompts finished.")
            self._run_duration = meter.create_histogram("batchchat.run.duration", "s", "Duration of a whole run.")

    def run_started(self, plan: RunPlan) -> None:
        """Nothing: a run is told at its end."""

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Nothing: ``attempt_ended`` tells all attempts."""

    def attempt_ended(self, report: AttemptReport) -> None:
        """One span, and the metrics of the attempt."""
        model = report.request.model or self._model
        if self._tracer is not None:
            self._tell_span(report, model)
        if self._meter is not None:
            self._count(report, model)

    def prompt_finished(self, outcome: Outcome) -> None:
        """Counts it."""
        if self._meter is not None:
            state = "reused" if outcome.reused_from is not None else outcome.status
            self._prompts.add(1, {"batchchat.state": state})

    def notice(self, message: str, level: int) -> None:
        """Nothing."""

    def run_finished(self, report: RunReport) -> None:
        """Nothing: ``close`` follows."""

    async def close(self, exit_code: int) -> None:
        """Tells the end of the run and sends what is left, within a few seconds."""
        if self._meter is not None:
            self._run_duration.record(time.monotonic() - self._began, {"batchchat.exit_code": exit_code})
        await self.close_attempts()

    async def close_attempts(self) -> None:
        """Sends what is left, within a few seconds; for one of several workers, that do not see the run's end."""
        await self._pipeline.close()

    def _tell_span(self, report: AttemptReport, model: str) -> None:
        if self._tracer is None:
            return
        ended = time.time_ns()
        attributes: Attributes = {**self._service, **span_attributes(report, model)}
        if self._ids:
            attributes["batchchat.prompt.id"] = whole(str(report.prompt_id))
        if self._content:
            attributes |= content_attributes(report)
        span = self._tracer.start_span(
            whole(f"chat {model}" if model else "chat"),
            kind=self._client,
            attributes=attributes,
            start_time=ended - round(report.duration_s * 1e9),
        )
        if report.error_type is not None:
            span.set_status(self._failed)
        span.end(ended)

    def _count(self, report: AttemptReport, model: str) -> None:
        # Lines of the input name models: what a metric keeps for each must not grow with the input.
        if model not in self._models:
            if len(self._models) >= _MOST_MODELS:
                model = "other"
            self._models.add(model)
        attributes = {**self._service, **metric_attributes(report, model)}
        self._duration.record(report.duration_s, attributes)
        usage = None if report.completion is None else report.completion.usage
        if usage is not None:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})


class AttemptTelemetry:
    """Tells attempts alone: for one of several workers, whose run tells of prompts and of itself where it ends."""

    def __init__(self, telemetry: OtlpTelemetry) -> None:
        self.attempt_ended = telemetry.attempt_ended

    def run_started(self, plan: RunPlan) -> None:
        """Nothing."""

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Nothing: ``attempt_ended`` tells all attempts."""

    def prompt_finished(self, outcome: Outcome) -> None:
        """Nothing."""

    def notice(self, message: str, level: int) -> None:
        """Nothing."""

    def run_finished(self, report: RunReport) -> None:
        """Nothing."""
