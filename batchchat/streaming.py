"""Outcomes as they come, without files: for code that keeps them itself."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchchat.admission import Abandoned, Admission
from batchchat.config import JobConfig, provider_config
from batchchat.durations import parse_rate
from batchchat.errors import ProviderError, RunStoppedError
from batchchat.input_lines import read_ask, take_id
from batchchat.limits import Limiter
from batchchat.observer import Observers
from batchchat.pool import PromptSource, WorkerPool
from batchchat.prompts import auto_id
from batchchat.providers.base import Provider, ProviderContext, digest_of
from batchchat.records import Failure, Outcome, Prompt, PromptId
from batchchat.retry import RetryPolicy
from batchchat.stopping import StopReason, StopRules
from batchchat.worker import Worker

__all__ = ["stream"]

PromptLike = str | Mapping[str, Any] | Prompt


async def stream(
    prompts: Iterable[PromptLike],
    *,
    provider: str | Mapping[str, Any] | Provider,
    concurrency: int = 16,
    rate: str | Sequence[str] = (),
    burst: int = 1,
    retries: int = 5,
    params: Mapping[str, Any] | None = None,
    timeout_s: float = 300.0,
    environ: Mapping[str, str] | None = None,
) -> AsyncGenerator[Outcome]:
    """Yields the outcome of each prompt in the order of completion.

    Args:
        prompts: Texts, objects as input lines hold them (``prompt``, ``messages``, ``turns``, …), or ``Prompt`` values;
            read lazily, in a thread.
        provider: A kind (``"openai"``), a job file's ``provider`` section, or an instance, whose settings are taken.
        rate: ``"5/s"``, or several that hold together.
        params: Sampling parameters for every prompt.
        timeout_s: Seconds for one attempt.

    Raises:
        ConfigError: The provider's settings or a rate are wrong.
        RunStoppedError: The service would refuse what is left; raised after the outcomes that were still to come.

    Leaving the loop early gives up what is in flight; close the generator (``contextlib.aclosing``) to wait for that.
    """
    rates = [parse_rate(text) for text in ((rate,) if isinstance(rate, str) else rate)]
    feed = _Feed(Limiter(rates, burst=burst), concurrency)
    context = ProviderContext(
        admit=feed.admission.admit,
        in_flight=feed.admission.in_flight,
        sent_at=feed.admission.sent_at,
        attempt_s=timeout_s,
        environ=os.environ if environ is None else environ,
    )
    given = dict(params or {})
    async with _entered(provider, context) as entered:
        worker = Worker(
            entered,
            limiter=feed.limiter,
            admission=feed.admission,
            policy=RetryPolicy(retries=retries),
            rules=feed.rules,
            observer=Observers(()),
            slots=asyncio.Semaphore(concurrency),
            params=given,
            judge=feed.judge,
        )
        running = asyncio.create_task(feed.run(_numbered(prompts), worker, entered, given))
        try:
            while (outcome := await feed.outcomes.get()) is not None:
                yield outcome
        finally:
            feed.abort()
            await running
        if feed.reason is not None:
            raise RunStoppedError(feed.reason.message)


class _Feed:
    """The pool behind one ``stream`` and the queue in front of it, which bounds what waits to be taken."""

    def __init__(self, limiter: Limiter, concurrency: int) -> None:
        self.limiter, self._concurrency = limiter, concurrency
        self.admission = Admission(limiter)
        self.rules = StopRules()
        self.outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(maxsize=concurrency)
        self.reason: StopReason | None = None
        self._pool: WorkerPool[Prompt | Outcome] | None = None

    async def run(
        self, items: Iterator[Prompt | Outcome], worker: Worker, provider: Provider, params: Mapping[str, Any]
    ) -> None:
        async def handle(item: Prompt | Outcome) -> None:
            if isinstance(item, Outcome):
                await self.outcomes.put(item)
                return
            identity = provider.identity(item, {**params, **item.params})
            try:
                outcome = await worker.complete_prompt(item, digest_of(identity))
            except Abandoned:
                return
            await self.outcomes.put(outcome)

        source: PromptSource[Prompt | Outcome] = PromptSource(items, ahead=self._concurrency)
        self._pool = WorkerPool(source, handle, tasks=2 * self._concurrency, keep=self.admission.in_flight)
        try:
            await self._pool.run()
        finally:
            self._pool = None
            if not self.admission.closed or self.reason is not None:
                await self.outcomes.put(None)

    def abort(self) -> None:
        """Gives up what is in flight."""
        self.admission.closed = True
        if self._pool is not None:
            self._pool.abort()

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
        return provider_class(config, context)
    made: Provider = type(provider)(provider.config, context)
    return made


def _numbered(prompts: Iterable[PromptLike]) -> Iterator[Prompt | Outcome]:
    """Prompts with ids and indexes; an object that is none becomes its failure."""
    for index, item in enumerate(prompts):
        if isinstance(item, Prompt):
            yield item
            continue
        fields = {"prompt": item} if isinstance(item, str) else dict(item)
        try:
            prompt_id, line = take_id(fields, None)
            ask = read_ask(fields, None, None)
        except ValueError as error:
            yield Outcome(
                id=f"line-{index + 1}", index=index, error=Failure(type="input", message=str(error)), line=fields
            )
            continue
        yield Prompt(
            id=auto_id(ask) if prompt_id is None else prompt_id,
            index=index,
            line_number=index + 1,
            messages=ask.messages,
            system=ask.system,
            turns=ask.turns,
            model=ask.model,
            params=ask.params,
            chat_id=ask.chat_id,
            line=line,
        )
