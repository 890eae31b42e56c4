"""A second attempt beside a slow first one: exactly one answer, nothing on its way afterwards, nothing uncounted."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from batchchat.admission import Abandoned, Admission
from batchchat.budget import Budget
from batchchat.durations import Rate
from batchchat.errors import ServerError
from batchchat.limits import Limiter
from batchchat.meter import Meter
from batchchat.observer import Observers
from batchchat.prices import PriceConfig, PriceList
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Outcome, Prompt, Usage
from batchchat.retry import RetryPolicy
from batchchat.slots import Slots
from batchchat.stopping import StopRules
from batchchat.worker import Worker
from tests.virtual_time import run_virtual

USAGE = Usage(input_tokens=10, output_tokens=10)


class Service:
    """Answers attempt N of a prompt after ``plan[N]`` seconds, or fails then; counts what is on its way."""

    kind = "fake"

    def __init__(self, gate: Admission, plan: list[tuple[float, str | Exception]], *, keeps: bool = False) -> None:
        self.gate, self.plan, self.keeps_conversations = gate, plan, keeps
        self.sent: list[float] = []
        self.on_way = 0

    async def complete(self, request: ChatRequest) -> Completion:
        await self.gate.admit()
        task = asyncio.current_task()
        self.gate.begin(task)
        self.gate.sent(task)
        seconds, what = self.plan[min(len(self.sent), len(self.plan) - 1)]
        self.sent.append(asyncio.get_running_loop().time() - 1000)
        self.on_way += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.on_way -= 1
            self.gate.left(task)
        if isinstance(what, Exception):
            raise what
        return Completion(text=what, usage=USAGE)


class Run:
    def __init__(
        self,
        plan: list[tuple[float, str | Exception]],
        *,
        after_s: float = 30,
        slots: int = 4,
        retries: int = 0,
        keeps: bool = False,
        all_begun: Callable[[], bool] = lambda: True,
        rates: tuple[Rate, ...] = (),
        budget: str | None = None,
        prompt_s: float = 0,
    ) -> None:
        self.limiter = Limiter(rates)
        self.exhausted: list[str] = []
        self.budget = Budget(None if budget is None else Decimal(budget), self.exhausted.append)
        prices = PriceList({"*": PriceConfig(input=1, output=1)}, library=False)
        self.admission = Admission(self.limiter, Meter(self.budget, prices=prices))
        self.service = Service(self.admission, plan, keeps=keeps)
        self.slots = Slots(slots)
        self.worker = Worker(
            self.service,
            limiter=self.limiter,
            admission=self.admission,
            policy=RetryPolicy(retries=retries, wait_jitter_s=0),
            rules=StopRules(),
            observer=Observers(()),
            slots=self.slots,
            params={"max_tokens": 10},
            judge=lambda prompt_id, error: None,
            prompt_s=prompt_s,
        )
        self.ended = self.worker.allow_second_attempts(after_s, all_begun)
        self.outcomes: list[Outcome] = []
        self.done_at: list[float] = []
        self.free_slots = slots

    async def ask(self, number: int = 0, **fields: Any) -> None:
        async def deliver(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            self.done_at.append(asyncio.get_running_loop().time() - 1000)

        messages = [{"role": "user", "content": f"question {number}"}]
        prompt = Prompt(id=f"q-{number}", index=number, line_number=number + 1, messages=messages, **fields)
        await self.worker.complete_prompt(prompt, "f", deliver)

    def assert_clean(self) -> None:
        assert self.service.on_way == 0
        assert self.admission.in_flight == set()
        assert self.admission._passages == {}
        assert self.budget._holds == 0
        assert self.budget._held == 0
        assert self.worker.lives == {}
        assert self.slots.free == self.free_slots
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    async def go(self, *asks: Any) -> "Run":
        await asyncio.gather(*(asks or (self.ask(),)))
        self.assert_clean()
        return self


def virtual(make: Callable[[], Run], *, late_s: float = 0.0) -> Run:
    async def main() -> Run:
        return await make().go()

    return run_virtual(main(), late_s=late_s)


def test_second_attempt_goes_out_after_its_time_and_wins() -> None:
    run = virtual(lambda: Run([(500, "first"), (5, "second")]))
    assert run.service.sent == pytest.approx([0, 30], abs=0.01)
    assert run.done_at == pytest.approx([35], abs=0.01)
    (outcome,) = run.outcomes
    assert (outcome.completion.text, outcome.attempts) == ("second", 2)
    assert run.worker.attempts == {"answered": 1, "cancelled": 1}
    assert run.worker.second_attempts == 1
    usage = run.budget.spent.usage
    assert usage.output_tokens == 10, "the one that was given up made none that is known of"
    assert usage.input_tokens > 10
    assert usage.estimated


def test_first_attempt_may_win_still() -> None:
    run = virtual(lambda: Run([(40, "first"), (500, "second")]))
    assert run.outcomes[0].completion.text == "first"
    assert run.done_at == pytest.approx([40], abs=0.01)
    assert run.worker.attempts == {"answered": 1, "cancelled": 1}
    assert run.budget.spent.usage.input_tokens > 10


def test_quick_prompt_is_asked_once() -> None:
    run = virtual(lambda: Run([(29, "first")]))
    assert len(run.service.sent) == 1
    assert run.worker.second_attempts == 0
    assert run.worker.attempts == {"answered": 1}


def test_both_whole_at_the_same_moment_give_one_answer() -> None:
    run = virtual(lambda: Run([(60, "first"), (30, "second")]))
    assert len(run.outcomes) == 1
    assert sum(run.worker.attempts.values()) == 2
    assert run.worker.attempts["answered"] == 1


@pytest.mark.parametrize(("second", "text"), [((20, "second"), "second"), ((20, ServerError("x")), None)])
def test_first_attempt_that_fails_leaves_it_to_the_second(second, text: str | None) -> None:
    run = virtual(lambda: Run([(40, ServerError("gone")), second]))
    (outcome,) = run.outcomes
    if text is None:
        assert outcome.error.message == "gone"
        assert run.worker.attempts == {"server": 2}
    else:
        assert outcome.completion.text == text
        assert run.worker.attempts == {"answered": 1, "server": 1}
    assert outcome.attempts == 2
    assert run.done_at == pytest.approx([50], abs=0.01)


def test_second_attempt_that_fails_does_not_disturb_the_first() -> None:
    run = virtual(lambda: Run([(100, "first"), (5, ServerError("x"))]))
    assert run.outcomes[0].completion.text == "first"
    assert run.worker.attempts == {"answered": 1, "server": 1}
    assert len(run.service.sent) == 2, "there is no third"


def test_both_that_fail_are_followed_by_a_retry() -> None:
    run = virtual(lambda: Run([(40, ServerError("a")), (20, ServerError("b")), (5, "third")], retries=3))
    assert run.outcomes[0].completion.text == "third"
    assert run.outcomes[0].attempts == 3


def test_none_goes_out_while_prompts_are_left_to_begin() -> None:
    async def main() -> Run:
        left = [True]
        run = Run([(500, "first"), (5, "second")], all_begun=lambda: not left)
        asking = asyncio.create_task(run.ask())
        await asyncio.sleep(100)
        assert len(run.service.sent) == 1
        left.clear()
        run.ended()
        await asking
        run.assert_clean()
        return run

    run = run_virtual(main())
    assert run.service.sent == pytest.approx([0, 100], abs=0.01)


def test_prompt_that_waits_for_a_slot_is_yet_to_begin() -> None:
    async def main() -> Run:
        run = Run([(100, "a"), (5, "b"), (5, "c")], slots=1)
        return await run.go(run.ask(0), run.ask(1))

    run = run_virtual(main())
    assert run.worker.second_attempts == 0
    assert [outcome.id for outcome in run.outcomes] == ["q-0", "q-1"]


def test_second_attempt_needs_a_slot() -> None:
    run = virtual(lambda: Run([(100, "first"), (1, "second")], slots=1))
    assert run.service.sent == [pytest.approx(0, abs=0.01)]
    assert run.outcomes[0].completion.text == "first"
    assert run.worker.attempts == {"answered": 1}


def test_second_attempt_keeps_to_the_rate() -> None:
    run = virtual(lambda: Run([(500, "first"), (1, "second")], rates=(Rate(1, 60.0),)))
    assert run.service.sent[1] - run.service.sent[0] >= 60


def test_time_that_the_first_attempt_waited_to_be_sent_does_not_count() -> None:
    async def main() -> Run:
        run = Run([(20, "a")])
        run.limiter.hold("paused")
        asyncio.get_running_loop().call_later(100, run.limiter.release, "paused")
        return await run.go()

    run = run_virtual(main())
    assert run.service.sent == pytest.approx([100], abs=0.1)


def test_prompt_that_waits_for_its_conversation_is_yet_to_begin() -> None:
    async def main() -> Run:
        run = Run([(50, "a"), (50, "b"), (5, "c")])
        return await run.go(run.ask(0, chat_id="shared"), run.ask(1, chat_id="shared"))

    run = run_virtual(main())
    assert run.service.sent == pytest.approx([0, 50, 80], abs=0.1)


@pytest.mark.parametrize("budget", ["0.00006", "0.00007", "1"])
def test_budget_is_kept_and_not_called_used_up_for_a_second_attempt(budget: str) -> None:
    run = virtual(lambda: Run([(100, "first"), (500, "second")], budget=budget))
    assert run.outcomes[0].completion.text == "first"
    assert run.exhausted == []
    assert run.worker.second_attempts == (budget == "1")
    assert run.budget.spent.cost_usd <= Decimal(budget)


def test_second_attempt_does_not_wait_for_the_budget() -> None:
    """It would hold up retries behind it, for something that is worth less."""

    async def main() -> Run:
        run = Run([(100, "a"), (40, "b"), (5, "c")], budget="0.00014")
        return await run.go(run.ask(0), run.ask(1))

    assert len(run_virtual(main()).service.sent) == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_none_for_a_conversation_that_the_service_keeps(keeps: bool) -> None:
    async def main() -> Run:
        run = Run([(100, "first"), (1, "second")], keeps=keeps)
        return await run.go(run.ask(chat_id="shared"))

    assert len(run_virtual(main()).service.sent) == (1 if keeps else 2)


def test_prompt_deadline_ends_both() -> None:
    run = virtual(lambda: Run([(500, "first"), (500, "second")], prompt_s=60))
    assert run.outcomes[0].error.type == "timeout"
    assert run.done_at == pytest.approx([60], abs=0.01)


@pytest.mark.parametrize("moment", [1, 29.999, 30, 30.001, 34.999, 35, 35.001, 50])
@pytest.mark.parametrize("second", ["second", ServerError("x")])
@pytest.mark.parametrize("first", ["first", ServerError("y")])
def test_end_at_any_moment_leaves_nothing_behind(moment: float, first, second) -> None:
    """A run that is given up: the prompt stays pending, or its answer is delivered; never two of them."""

    async def main() -> Run:
        run = Run([(50, first), (5, second)])
        asking = asyncio.create_task(run.ask())
        asyncio.get_running_loop().call_later(moment, asking.cancel)
        with_end = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(with_end[0], asyncio.CancelledError | None)
        run.assert_clean()
        return run

    run = run_virtual(main())
    assert len(run.outcomes) <= 1


@pytest.mark.parametrize("closed_at", [10, 32])
def test_stop_lets_what_is_on_its_way_finish_and_sends_no_second_one(closed_at: float) -> None:
    async def main() -> Run:
        run = Run([(50, "first"), (10, "second")])
        asyncio.get_running_loop().call_later(closed_at, setattr, run.admission, "closed", True)
        try:
            return await run.go()
        except Abandoned:
            raise AssertionError("an answer was given away") from None

    run = run_virtual(main())
    assert run.outcomes[0].completion.text == ("first" if closed_at == 10 else "second")


def test_drain_keeps_a_prompt_whose_second_attempt_is_on_its_way() -> None:
    async def main() -> Run:
        run = Run([(40, ServerError("gone")), (30, "second")])
        asking = asyncio.create_task(run.ask())
        await asyncio.sleep(45)
        assert asking in run.admission.in_flight
        await asking
        run.assert_clean()
        return run

    assert run_virtual(main()).outcomes[0].completion.text == "second"
