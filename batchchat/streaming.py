"""Outcomes as they come, without files: for code that keeps them itself."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from batchchat.admission import Abandoned, Admission
from batchchat.answers import make_rule
from batchchat.config import JobConfig, provider_config
from batchchat.durations import parse_rate
from batchchat.errors import ConfigError, ProviderError, RunStoppedError
from batchchat.fingerprints import fingerprint_of
from batchchat.input_lines import read_ask, take_id
from batchchat.job_setup import make_slots
from batchchat.limits import Limiter
from batchchat.observer import Observers, RunPlan
from batchchat.pool import PromptSource, Source, WorkerPool
from batchchat.prompts import auto_id
from batchchat.providers.base import Provider, ProviderContext
from batchchat.records import Failure, Outcome, Prompt, PromptId
from batchchat.retry import RetryPolicy
from batchchat.stopping import StopReason, StopRules
from batchchat.worker import Worker

if TYPE_CHECKING:
    from batchchat.stream_progress import StreamProgress

__all__ = ["stream"]

PromptLike = str | Mapping[str, Any] | Prompt


async def stream(
    prompts: Iterable[PromptLike],
    *,
    provider: str | Mapping[str, Any] | Provider,
    concurrency: int | Literal["auto"] = 16,
    rate: str | Sequence[str] = (),
    burst: int = 1,
    retries: int = 5,
    params: Mapping[str, Any] | None = None,
    answer_schema: Mapping[str, Any] | str | None = None,
    schema_retries: int = 2,
    extract: str | None = None,
    timeout_s: float = 300.0,
    environ: Mapping[str, str] | None = None,
    progress: bool = False,
) -> AsyncGenerator[Outcome]:
    """Yields the outcome of each prompt in the order of completion.

    Args:
        prompts: Texts, objects as input lines hold them (``prompt``, ``messages``, ``turns``, …), or ``Prompt`` values;
            read lazily, in a thread. What is none of these becomes a failure of type ``input``.
        provider: A kind (``"openai"``), a job file's ``provider`` section, or an instance, whose settings are taken.
        concurrency: Prompts in flight; ``"auto"`` finds out how many pay.
        rate: ``"5/s"``, or several that hold together.
        params: Sampling parameters for every prompt.
        answer_schema: JSON Schema that every answer must fit, or the path of its file.
        schema_retries: How often an answer that does not fit is asked for again.
        extract: JMESPath expression; what it finds in the answer's JSON is ``Outcome.value``.
        timeout_s: Seconds for one attempt.
        progress: Show a bar, under the cell in a notebook, else on standard error. It has a length where ``prompts``
            has one.

    Raises:
        ConfigError: The provider's settings, a rate or a number are wrong.
        Exception: What iterating over ``prompts`` raised, after the outcomes of what came before it.
        RunStoppedError: The service would refuse what is left; raised after the outcomes that were still to come.

    Leaving the loop early gives up what is in flight; close the generator (``contextlib.aclosing``) to wait for that.
    """
    for name, number, least in (
        ("concurrency", 1 if concurrency == "auto" else concurrency, 1),
        ("burst", burst, 1),
        ("retries", retries, 0),
        ("schema_retries", schema_retries, 0),
    ):
        if number < least:
            raise ConfigError(f"{name}: expected a whole number of at least {least}, found {number}")
    try:
        rates = [parse_rate(text) for text in ((rate,) if isinstance(rate, str) else rate)]
    except ValueError as error:
        raise ConfigError(f"rate: {error}") from error
    feed = _Feed(Limiter(rates, burst=burst), concurrency)
    context = ProviderContext(
        gate=feed.admission,
        concurrency=feed.slots.most,
        attempt_s=timeout_s,
        environ=os.environ if environ is None else environ,
    )
    given = dict(params or {})
    rule = make_rule(answer_schema, extract, retries=schema_retries, source=None)
    shown = _progress(feed, prompts) if progress else None
    async with _entered(provider, context) as entered:
        worker = Worker(
            entered,
            limiter=feed.limiter,
            admission=feed.admission,
            policy=RetryPolicy(retries=retries),
            rules=feed.rules,
            observer=Observers(()) if shown is None else shown.observer,
            slots=feed.slots.slots,
            params=given,
            judge=feed.judge,
            rule=rule,
            around=feed.slots.around,
        )
        schema = None if rule is None else rule.schema

        def fingerprint(prompt: Prompt) -> str:
            return fingerprint_of(entered, prompt, {**given, **prompt.params}, schema)

        running = asyncio.create_task(feed.run(_numbered(prompts), worker, fingerprint))
        try:
            if shown is not None:
                shown.begin(worker)
            while (outcome := await feed.outcomes.get()) is not None:
                if shown is not None:
                    shown.add(outcome)
                yield outcome
        finally:
            if shown is not None:
                shown.close()
            await feed.leave(running)
        if feed.reason is not None:
            raise RunStoppedError(feed.reason.message)


def _progress(feed: "_Feed", prompts: Iterable[PromptLike]) -> "StreamProgress":
    """What shows the progress of a stream."""
    from batchchat.stream_progress import StreamProgress  # which knows a library that streams do without

    total = len(prompts) if isinstance(prompts, Sized) else None
    plan = RunPlan(total=total, completed=0, concurrency=feed.slots.most, output="", finds_concurrency=feed.slots.found)
    return StreamProgress(plan, limiter=feed.limiter, admission=feed.admission, slots=feed.slots.slots)


class _Feed:
    """The pool behind one ``stream`` and the queue in front of it, which bounds what waits to be taken."""

    def __init__(self, limiter: Limiter, concurrency: int | Literal["auto"]) -> None:
        self.limiter = limiter
        self.admission = Admission(limiter)
        self.slots = make_slots(concurrency, 1, self.admission, lambda message, level: None)
        self.rules = StopRules()
        self.outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(maxsize=self.slots.most)
        self.reason: StopReason | None = None
        self._pool: WorkerPool[Prompt | Outcome] | None = None

    async def run(
        self, items: Iterator[Prompt | Outcome], worker: Worker, fingerprint: Callable[[Prompt], str]
    ) -> None:
        source: PromptSource[Prompt | Outcome] = PromptSource(items, ahead=self.slots.most)

        async def handle(item: Prompt | Outcome) -> None:
            if isinstance(item, Outcome):
                await self._give(item, pool)
                return
            with suppress(Abandoned):
                await worker.complete_prompt(item, fingerprint(item), lambda outcome: self._give(outcome, pool))

        metered: Source[Prompt | Outcome]
        metered, handled = self.slots.metered(source, handle)
        self._pool = pool = WorkerPool(
            metered,
            handled,
            tasks=2 * self.slots.most,
            keep=self.admission.in_flight,
            slots=self.slots.slots,
        )
        try:
            await pool.run()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._pool = None
            await self.outcomes.put(None)

    async def _give(self, outcome: Outcome, pool: "WorkerPool[Prompt | Outcome]") -> None:
        """Hands an outcome over; once it is there, a stop no longer takes it back."""
        if (task := asyncio.current_task()) is None:
            raise RuntimeError("an outcome without a running task")
        pool.writing.add(task)
        try:
            await self.outcomes.put(outcome)
        finally:
            pool.writing.discard(task)

    async def leave(self, running: "asyncio.Task[None]") -> None:
        """Gives up what is in flight, and passes over the outcomes that nobody waits for any more."""
        self.admission.closed = True
        if self._pool is not None:
            self._pool.abort()
        while not running.done():
            getting = asyncio.ensure_future(self.outcomes.get())
            await asyncio.wait({getting, running}, return_when=asyncio.FIRST_COMPLETED)
            getting.cancel()
        await running

    def judge(self, prompt_id: PromptId, error: ProviderError) -> None:
        """Sends nothing new where a failure for good says that the prompts to come would fail as well."""
        reason = self.rules.failed(prompt_id, error)
        if reason is not None and self.reason is None:
            self.reason = reason
            self.admission.closed = True
            if self._pool is not None:
                self._pool.drain()


def _entered(provider: str | Mapping[str, Any] | Provider, context: ProviderContext) -> Provider:
    if isinstance(provider, str):
        provider = {"name": provider}
    if isinstance(provider, Mapping):
        provider_class, config = provider_config(JobConfig(provider=dict(provider)))
        if (check := getattr(provider_class, "check_usable", None)) is not None:
            check(config)
        return provider_class(config, context)
    config = getattr(provider, "config", None)
    if not isinstance(config, provider.Config):
        raise ConfigError(f"provider {provider.kind} keeps no settings as .config; give its kind or its settings")
    return type(provider)(config, context)


def _numbered(prompts: Iterable[PromptLike]) -> Iterator[Prompt | Outcome]:
    """Prompts with ids and indexes; an object that is none becomes its failure."""
    seen: Counter[PromptId] = Counter()
    for index, item in enumerate(prompts):
        if isinstance(item, Prompt):
            yield item
            continue
        try:
            fields = {"prompt": item} if isinstance(item, str) else dict(item)
        except (TypeError, ValueError):
            yield _failed(index, f"found {type(item).__name__}, expected a text, an object or a Prompt", None)
            continue
        try:
            prompt_id, line = take_id(fields, None)
            ask = read_ask(fields, None, None)
        except ValueError as error:
            yield _failed(index, str(error), fields)
            continue
        if prompt_id is None:
            digest = auto_id(ask)
            seen[digest] += 1
            prompt_id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        yield ask.to_prompt(prompt_id, index=index, line_number=index + 1, line=line)


def _failed(index: int, reason: str, fields: dict[str, Any] | None) -> Outcome:
    return Outcome(id=f"line-{index + 1}", index=index, error=Failure(type="input", message=reason), line=fields)
