"""A service that is dead: the run waits, asks once in a while, costs no prompt its attempts, and goes on by itself."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from batchchat.admission import Abandoned, Admission
from batchchat.breaker import Breaker, is_dead
from batchchat.errors import (
    AttemptTimeoutError,
    AuthError,
    IncompleteError,
    InvalidRequestError,
    NetworkError,
    ProviderError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from batchchat.limits import Limiter
from batchchat.observer import Observers
from batchchat.providers.nonce import NonceCache
from batchchat.records import Completion, Outcome, Prompt
from batchchat.retry import RetryPolicy
from batchchat.run_settings import BreakerConfig
from batchchat.slots import Slots
from batchchat.stopping import StopRules
from batchchat.worker import Worker
from tests.virtual_time import run_virtual

Answer = Callable[[float, Prompt], ProviderError | None]


class Service:
    """A provider whose answers hang on the time since the start and on the prompt."""

    kind: ClassVar[str] = "fake"

    def __init__(self, admission: Admission, answer: Answer, *, latency_s: float, nonces: bool) -> None:
        self._admission, self._answer, self._latency_s = admission, answer, latency_s
        self._began_at = asyncio.get_running_loop().time()
        self._nonces = NonceCache(self._fetch) if nonces else None
        self.sent: list[tuple[float, str]] = []
        self.flying = self.most_flying = 0

    async def complete(self, request: Any) -> Completion:
        if self._nonces is not None:
            await self._nonces.get()
        await self._admission.admit()
        await self._exchange(request.messages[0]["content"])
        return Completion(text="yes")

    async def _fetch(self) -> str:
        await self._admission.admit()
        await self._exchange("nonce")
        return "n1"

    async def _exchange(self, what: str) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        self._admission.begin(task)
        self._admission.sent(task)
        self.sent.append((loop.time() - self._began_at, what))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(self._latency_s)
            if (error := self._answer(loop.time() - self._began_at, what)) is not None:
                raise error
        finally:
            self.flying -= 1
            self._admission.left(task)


class Run:
    """What became of a run in virtual time."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.told: list[str] = []
        self.held: list[str | None] = []
        self.gave_up: list[str] = []
        self.judged: list[Any] = []
        self.sent: list[tuple[float, str]] = []
        self.most_flying = 0
        self.took_s = 0.0

    def notice(self, message: str, level: int) -> None:
        self.told.append(message)

    def run_held(self, word: str, why: str | None) -> None:
        self.held.append(why)

    def attempt_failed(self, *_: Any) -> None:
        return None

    def requests(self, start: float, end: float) -> int:
        return sum(start <= at < end for at, _ in self.sent)


def play(
    answer: Answer,
    *,
    prompts: int = 100,
    concurrency: int = 8,
    latency_s: float = 0.05,
    nonces: bool = False,
    retries: int = 5,
    settings: BreakerConfig | None = None,
    prompt_s: float = 0.0,
    beside: Callable[[Limiter], None] = lambda limiter: None,
) -> Run:
    """Runs prompts against a service, with twice as many tasks as slots, as the pool does."""
    random.seed(11)  # of the jitter

    async def main() -> Run:
        run, loop = Run(), asyncio.get_running_loop()
        limiter = Limiter()
        admission = Admission(limiter)
        observer = Observers([run])
        service = Service(admission, answer, latency_s=latency_s, nonces=nonces)
        tasks: list[asyncio.Task[None]] = []

        def give_up(sentence: str) -> None:
            run.gave_up.append(sentence)
            admission.closed = True
            for task in tasks:
                if task not in admission.in_flight:
                    task.cancel()

        breaker = Breaker(settings or BreakerConfig(), limiter, observer, slots=concurrency, give_up=give_up)
        worker = Worker(
            service,
            limiter=limiter,
            admission=admission,
            policy=RetryPolicy(retries=retries),
            rules=StopRules(),
            observer=observer,
            slots=Slots(concurrency),
            params={},
            judge=lambda prompt_id, error: run.judged.append(prompt_id),
            prompt_s=prompt_s,
            breaker=breaker,
        )
        todo = iter(range(prompts))

        async def deliver(outcome: Outcome) -> None:
            run.outcomes.append(outcome)

        async def work() -> None:
            for number in todo:
                messages = [{"role": "user", "content": f"q{number}"}]
                prompt = Prompt(id=f"q{number}", index=number, line_number=number + 1, messages=messages, line={})
                try:
                    await worker.complete_prompt(prompt, "f", deliver)
                except Abandoned:
                    return

        began = loop.time()
        beside(limiter)
        async with breaker:
            tasks += [asyncio.create_task(work()) for _ in range(2 * concurrency)]
            await asyncio.gather(*tasks, return_exceptions=True)
        run.took_s, run.sent, run.most_flying = loop.time() - began, service.sent, service.most_flying
        return run

    return run_virtual(main())


def down(start: float, end: float, error: Callable[[], ProviderError] = lambda: ServerError("HTTP 503", status=503)) -> Answer:  # fmt: skip
    return lambda at, prompt: error() if start <= at < end else None


ERRORS = [
    lambda: ServerError("HTTP 503", status=503),
    lambda: NetworkError("no connection"),
    lambda: AttemptTimeoutError("no answer"),
    lambda: ServerError("HTTP 503", status=503, retry_after_s=30.0),
]


@pytest.mark.parametrize("nonces", [False, True], ids=["plain", "nonces"])
@pytest.mark.parametrize("concurrency", [4, 16])
@pytest.mark.parametrize("error", ERRORS, ids=["503", "network", "timeout", "retry-after"])
def test_1000_s_of_a_dead_service_cost_no_prompt(error, concurrency: int, nonces: bool) -> None:
    run = play(down(0, 1000, error), concurrency=concurrency, nonces=nonces)
    assert len(run.outcomes) == 100
    assert all(outcome.error is None for outcome in run.outcomes)
    assert run.judged == []
    assert len({outcome.id for outcome in run.outcomes}) == 100
    answered = Counter(what for at, what in run.sent if at + 0.05 >= 1000 and what != "nonce")
    assert set(answered.values()) == {1}, "no prompt is asked again once the service is back"
    assert max(outcome.attempts for outcome in run.outcomes) <= 6 + 24
    # Until it opens, ordinary attempts; then a probe after 1 s, 2 s, 4 s … 60 s.
    assert run.requests(100, 1000) <= 900 / (60 * 0.9) + 20
    assert 1000 <= run.took_s < 1100
    assert any(told.startswith("the service does not answer; waiting") for told in run.told)
    assert any(told.startswith("the service answers again after") for told in run.told)


def test_service_that_dies_in_the_middle_comes_back_too() -> None:
    run = play(down(5, 505), prompts=2000)
    assert len({outcome.id for outcome in run.outcomes if outcome.error is None}) == 2000
    assert run.requests(60, 505) <= 445 / 54 + 6
    assert run.held[0] == "waiting for the service, which does not answer (--max-outage)"
    assert run.held[-1] is None


def test_waiting_prompts_go_out_step_by_step_when_the_service_is_back() -> None:
    run = play(down(0, 300), concurrency=16, latency_s=1.0)
    first = min(at for at, _ in run.sent if at >= 299)
    for second, most in ((1, 1), (2, 3), (3, 7), (4, 15)):
        assert run.requests(first, first + second) <= most
    assert run.most_flying == 16


def test_one_probe_at_a_time() -> None:
    run = play(down(0, 1000), latency_s=7.0)
    probes = sorted(at for at, _ in run.sent if 100 < at < 1000)
    assert all(later - earlier >= 7 for earlier, later in zip(probes, probes[1:], strict=False))


def test_probes_are_different_prompts() -> None:
    run = play(down(0, 1000))
    probes = [what for at, what in run.sent if 60 < at < 1000]
    assert len(set(probes)) > len(probes) / 2


@pytest.mark.parametrize(
    "alive",
    [
        lambda: RateLimitError("429", status=429),
        lambda: InvalidRequestError("400", status=400),
        lambda: IncompleteError("cut"),
        lambda: QuotaError("none left"),
        lambda: AuthError("401", status=401),
        lambda: ServerError("HTTP 409", status=409),
        lambda: ServerError("PHP fatal", status=500, retry_limit=2),
        lambda: ServerError("HTTP 500", status=500),
        lambda: ServerError("told in a stream", status=200),
    ],
)
def test_what_a_service_at_work_says_never_opens_and_always_closes(alive) -> None:
    assert not is_dead(alive())
    run = play(lambda at, prompt: alive(), prompts=60)
    assert run.told == run.held == []
    assert len(run.outcomes) == 60
    # After an outage it counts as a sign of life.
    run = play(lambda at, prompt: ServerError("503", status=503) if at < 300 else alive() if at < 400 else None)
    assert any(told.startswith("the service answers again") for told in run.told)
    assert len(run.outcomes) == 100


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_service_that_fails_now_and_then_opens_nothing(share: float) -> None:
    chance = random.Random(7)
    run = play(lambda at, prompt: ServerError("503", status=503) if chance.random() < share else None, retries=40)
    assert run.told == []
    assert all(outcome.error is None for outcome in run.outcomes)


def test_service_that_comes_back_half_dead_is_used_as_far_as_it_goes() -> None:
    chance = random.Random(7)
    run = play(
        lambda at, prompt: ServerError("503", status=503) if at < 300 or chance.random() < 0.4 else None, prompts=300, retries=40
    )  # fmt: skip
    assert all(outcome.error is None for outcome in run.outcomes)
    assert run.took_s < 600


def test_prompts_that_the_service_fails_on_each_time_fail_and_nobody_waits() -> None:
    """As when a run asks again what failed in the run before, and nothing else is left."""
    run = play(lambda at, prompt: ServerError("HTTP 500", status=500), prompts=60)
    assert run.told == run.held == []
    assert [(outcome.attempts, outcome.error.type) for outcome in run.outcomes] == [(6, "server")] * 60


def test_few_retries_that_are_over_before_it_opens_fail_as_ever() -> None:
    """Their attempts span less than ``after``."""
    run = play(lambda at, prompt: NetworkError("down"), prompts=16, concurrency=16, retries=2)
    assert run.told == []
    assert [outcome.error.type for outcome in run.outcomes] == ["network"] * 16
    assert {outcome.attempts for outcome in run.outcomes} == {3}


def test_single_prompt_fails_after_its_retries() -> None:
    run = play(lambda at, prompt: NetworkError("down"), prompts=1)
    assert [(outcome.attempts, outcome.error.type) for outcome in run.outcomes] == [(6, "network")]
    assert run.told == []


def test_switched_off_it_does_nothing() -> None:
    run = play(down(0, 1000), settings=BreakerConfig(failures=0), prompts=20)
    assert run.told == []
    assert {outcome.error.type for outcome in run.outcomes} == {"server"}


def test_outage_longer_than_allowed_gives_up_and_leaves_everything_pending() -> None:
    run = play(lambda at, prompt: ServerError("HTTP 503", status=503), settings=BreakerConfig(max_open_s=600.0))
    assert run.outcomes == []
    (sentence,) = run.gave_up
    assert sentence == "the service has not answered for 10m (--max-outage): server: HTTP 503"
    assert 600 < run.took_s < 700


def test_outage_without_a_bound_is_waited_for() -> None:
    run = play(down(0, 50_000), settings=BreakerConfig(max_open_s=0.0))
    assert len(run.outcomes) == 100
    assert run.gave_up == []


def test_time_outside_a_window_counts_for_no_outage() -> None:
    """For ten hours nobody may ask; the hour of waiting is not over because of that."""

    def beside(limiter: Limiter) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(100, limiter.hold, "window")
        loop.call_later(36_100, limiter.release, "window")

    run = play(down(0, 37_000), beside=beside)
    assert len(run.outcomes) == 100
    assert run.gave_up == []
    assert run.requests(110, 36_100) == 0, "no probe goes out outside the window"


def test_deadline_of_a_prompt_does_not_run_while_the_service_is_dead() -> None:
    run = play(down(0, 1000), prompt_s=100.0)
    assert all(outcome.error is None for outcome in run.outcomes)


def test_probe_that_is_given_up_is_replaced() -> None:
    """A probe may end without a word, as when its prompt is cancelled; the run must not wait for it for ever."""

    async def main() -> tuple[list[float], frozenset[str]]:
        loop = asyncio.get_running_loop()
        limiter = Limiter()
        breaker = Breaker(BreakerConfig(), limiter, Observers([]), slots=4, give_up=lambda sentence: None)
        async with breaker:
            for _ in range(2):
                for _ in range(20):
                    breaker.failed(NetworkError("down"))
                await asyncio.sleep(16)
            assert limiter.holds == {"breaker"}
            began, times = loop.time(), []
            for _ in range(3):
                send = await limiter.acquire()
                times.append(loop.time() - began)
                limiter.left(send)
            breaker.alive()
            for _ in range(3):
                breaker.alive()
            return times, limiter.holds

    times, holds = run_virtual(main())
    assert times[0] < times[1] - 30 < times[2] - 60
    assert holds == frozenset()


@pytest.mark.parametrize("text", ["off", "on"])
def test_words_for_off_and_on(tmp_path, text: str) -> None:
    from tests.cli.test_run_command import job_of

    path = tmp_path / "job.yaml"
    path.write_text(f"breaker: {text}\n")
    expected = BreakerConfig(failures=0) if text == "off" else BreakerConfig()
    assert job_of("-j", str(path)).breaker == expected
    path.write_text("breaker: {failures: 5, after: 2s, max_open: 0}\n")
    assert job_of("-j", str(path)).breaker == BreakerConfig(failures=5, after_s=2.0, max_open_s=0.0)
    assert job_of("-j", str(path), "--breaker", text).breaker == expected
