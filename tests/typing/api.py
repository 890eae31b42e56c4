"""The public API as programs use it: checked by mypy, never run."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Self, assert_type

import msgspec
import polars

import batchchat
from batchchat import BatchchatError, Completion, JobConfig, Outcome, Prompt, Provider, RunReport
from batchchat.errors import ErrorType, ProviderError, RunStoppedError
from batchchat.observer import RunObserver, RunPlan
from batchchat.providers import AIEngine, Chatgpt4Online, OpenAIChat
from batchchat.providers.base import ChatRequest, ProviderContext, StreamEnd, StreamEvent, TextDelta, text_of
from batchchat.records import Failure, Usage


async def a_job() -> None:
    job = batchchat.load_job("jobs/sample.yaml", {"concurrency": 4, "output.path": "out.jsonl"}, {"KEY": "x"})
    assert_type(job, JobConfig)
    assert_type(await batchchat.run_job(job), RunReport)
    report = await batchchat.run_job(job, observers=[Listener()], environ={})
    assert_type(report.exit_code, int)
    assert_type(report.pending, int | None)
    assert_type(report.attempts, dict[str, int])
    assert_type(report.usage, Usage)
    await batchchat.run_job(job, progress=True)


def frames(outcomes: list[Outcome]) -> None:
    assert_type(batchchat.to_frame(outcomes, library="polars"), polars.DataFrame)
    assert_type(batchchat.read_frame("r.jsonl", library="polars", errors=False), polars.DataFrame)
    assert_type(batchchat.to_frame(outcomes), Any)
    assert_type(batchchat.read_frame("r.jsonl"), Any)
    batchchat.to_frame(iter(outcomes), library="pandas").groupby("error_type")


def a_job_without_a_loop() -> RunReport:
    try:
        return batchchat.run_job_sync(batchchat.load_job(None, {}), progress=False)
    except BatchchatError as error:
        assert_type(error.exit_code, int)
        raise


async def a_stream(provider: Provider) -> None:
    async for outcome in batchchat.stream(["a", {"prompt": "b"}], provider="openai", concurrency=16, rate="5/s"):
        assert_type(outcome, Outcome)
        assert_type(outcome.id, str | int)
        assert_type(outcome.completion, Completion | None)
        assert_type(outcome.error, Failure | None)
        if outcome.error is not None:
            assert_type(outcome.error.type, ErrorType)
    prompts = (Prompt(id=n, index=n, line_number=n, messages=[{"role": "user", "content": "a"}]) for n in range(3))
    try:
        async with aclosing(
            batchchat.stream(prompts, provider=provider, rate=["5/s"], params={"temperature": 0})
        ) as some:
            async for _ in some:
                break
    except RunStoppedError as error:
        print(error)
    section: Mapping[str, Any] = {"name": "ai-engine", "base_url": "http://127.0.0.1:8080"}
    batchchat.stream(["a"], provider=section, burst=2, retries=0, timeout_s=10.0, environ={}, progress=True)


async def the_original_client() -> None:
    assert_type(await Chatgpt4Online.get_nonce({"User-Agent": "x"}), str)
    messages = [{"role": "user", "content": "Hello"}]
    try:
        async for part in Chatgpt4Online.create_async_generator(model="gpt-4", messages=messages, proxy=None):
            assert_type(part, str)
    except ProviderError as error:
        assert_type(error.status, int | None)
    assert_type(await Chatgpt4Online.create_async("gpt-4", messages), str)


def built_in_providers_are_providers() -> list[type[Provider]]:
    return [AIEngine, Chatgpt4Online, OpenAIChat]


class EchoConfig(msgspec.Struct, frozen=True):
    """Settings of a plug-in."""

    shout: bool = False


class Echo:
    """A plug-in's provider."""

    kind: ClassVar[str] = "echo"
    Config: ClassVar[type[msgspec.Struct]] = EchoConfig

    def __init__(self, config: EchoConfig, context: ProviderContext) -> None:
        self.config, self._context = config, context

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": self.kind, "messages": prompt.messages, "shout": self.config.shout}

    async def complete(self, request: ChatRequest) -> Completion:
        await self._context.gate.admit()
        text = text_of(request.messages[-1]["content"])
        return Completion(text=text.upper() if self.config.shout else text, finish_reason="stop")

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        completion = await self.complete(request)
        yield TextDelta(text=completion.text or "")
        yield StreamEnd(completion=completion)


def a_plug_in_is_a_provider(context: ProviderContext) -> Provider:
    return Echo(EchoConfig(shout=True), context)


class Listener:
    """An observer as a program writes one."""

    def run_started(self, plan: RunPlan) -> None: ...

    def attempt_failed(self, prompt_id: str | int, number: int, error: ProviderError, retried: bool) -> None: ...

    def prompt_finished(self, outcome: Outcome) -> None: ...

    def notice(self, message: str, level: int) -> None: ...

    def run_finished(self, report: RunReport) -> None: ...


def a_listener_is_an_observer() -> RunObserver:
    return Listener()


async def a_provider_by_hand(provider: Provider, request: ChatRequest) -> None:
    async with provider as entered:
        assert_type(await entered.complete(request), Completion)
        events: AsyncIterator[StreamEvent] = entered.stream(request)
        async for _ in events:
            break


if __name__ == "__main__":
    asyncio.run(a_job())
