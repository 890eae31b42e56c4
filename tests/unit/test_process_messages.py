"""What parent and child of ``--processes`` tell each other, and what each makes of it."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.admission import Abandoned, Admission
from batchchat.errors import ErrorType, ProviderError, ServerError, provider_error
from batchchat.limits import Limiter
from batchchat.processes.channel import Channel, frame_of
from batchchat.processes.errand import Errand
from batchchat.processes.gate_proxy import GateProxy, Pending
from batchchat.processes.messages import (
    ABANDONED,
    GO,
    NOT_NOW,
    Admit,
    Ask,
    Begun,
    Cancel,
    CarriedError,
    Done,
    Ended,
    Failed,
    FromChild,
    Left,
    NonceGiven,
    Reply,
    Sent,
    ToChild,
    Unused,
    Withdraw,
    Written,
)
from batchchat.processes.shared_nonce import NonceDesk
from batchchat.processes.silence import SilenceWatch
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Usage
from tests.virtual_time import run_virtual

texts = st.text() | st.just("half \ud83d of one")
numbers = st.integers() | st.just(1 << 80)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
requests = st.builds(
    ChatRequest,
    messages=st.lists(st.dictionaries(texts, values, max_size=3), max_size=3),
    params=st.dictionaries(texts, values, max_size=3),
    system=st.none() | texts,
    answer_schema=st.none() | st.dictionaries(texts, values, max_size=2),
)
completions = st.builds(
    Completion,
    text=st.none() | texts,
    usage=st.none() | st.builds(Usage, input_tokens=st.none() | st.integers(0, 1 << 40)),
    tool_calls=st.none() | st.lists(st.dictionaries(texts, values, max_size=2), max_size=2),
    choices=st.none() | st.lists(st.none() | texts, max_size=2),
)


def received(incoming: Any, data: bytes, cuts: list[int]) -> list[Any]:
    """What a channel makes of bytes that come in pieces."""
    got: list[Any] = []

    async def take() -> None:
        channel: Channel[Any] = Channel(incoming, got.extend, lambda: None)
        at = 0
        for cut in [*sorted(cuts), len(data)]:
            channel.data_received(data[at:cut])
            at = max(at, cut)

    asyncio.run(take())
    return got


@given(st.lists(st.builds(Ask, st.integers(1, 99), requests, st.booleans()), max_size=4), st.lists(st.integers(0, 500)))
def test_requests_arrive_as_they_are_however_they_are_cut(asks: list[Ask], cuts: list[int]) -> None:
    data = frame_of([*asks, Cancel(1)], msgspec.msgpack.Encoder()) + frame_of([Cancel(2)], msgspec.msgpack.Encoder())
    assert received(ToChild, data, [min(cut, len(data)) for cut in cuts]) == [*asks, Cancel(1), Cancel(2)]


@given(st.lists(st.builds(Done, st.integers(1, 99), completions), min_size=1, max_size=4))
def test_answers_arrive_as_they_are(answers: list[Done]) -> None:
    assert received(FromChild, frame_of(answers, msgspec.msgpack.Encoder()), []) == answers


@pytest.mark.parametrize("kind", sorted({"auth", "blocked", "rate_limit", "quota", "server", "timeout", "network"}))
@pytest.mark.parametrize("stops_run", [True, False])
def test_errors_keep_their_class_and_attributes(kind: ErrorType, stops_run: bool) -> None:
    error = provider_error(
        kind, "why", status=503, partial="a part", retry_after_s=1.5, retry_limit=2, stops_run=stops_run
    )
    data = frame_of([Failed(1, CarriedError.of(error), 3)], msgspec.msgpack.Encoder())
    (failed,) = received(FromChild, data, [])
    again = failed.error.error()
    assert type(again) is type(error)
    assert vars(again) | {"type": again.type} == vars(error) | {"type": error.type, "retryable": error.retryable}
    assert failed.place == 3


def test_error_of_a_plugin_keeps_what_counts() -> None:
    class OddError(ProviderError):
        type = "odd"  # type: ignore[assignment]
        retryable = True

    again = CarriedError.of(OddError("why")).error()
    assert (again.type, again.may_retry, str(again)) == ("odd", True, "why")


# The child's side of the gate.


def in_child(steps: Callable[[GateProxy, Pending], Any], *, let_out: bool, tell_at_once: bool = False) -> list[Any]:
    """What a provider's task tells the parent; the parent answers with ``GO`` one turn later."""
    told: list[Any] = []

    async def run() -> None:
        gate = GateProxy(tell, ask_before_sending=False, tell_at_once=tell_at_once)
        pending = Pending(7, let_out=let_out)
        task = asyncio.ensure_future(steps(gate, pending))
        gate.enter(task, pending)
        asyncio.get_running_loop().call_soon(gate.check_used, [pending])
        gates.append(gate)
        await task
        await asyncio.sleep(0)

    gates: list[GateProxy] = []

    def tell(message: Any) -> None:
        told.append(message)
        if isinstance(message, Admit):
            asyncio.get_running_loop().call_soon(lambda: gates[0].replied(message.number, GO))

    asyncio.run(run())
    return told


async def _one_request(gate: GateProxy) -> None:
    task = asyncio.current_task()
    assert task is not None
    await gate.admit()
    gate.begin(task)
    gate.sent(task)
    gate.left(task)


@pytest.mark.parametrize("watched", [False, True])
def test_request_that_came_with_leave_asks_for_nothing(watched: bool) -> None:
    """What becomes of it is told by the attempt's end, unless somebody watches."""
    gone = []

    async def one(gate: GateProxy, pending: Pending) -> None:
        await _one_request(gate)
        gone.append(pending.gone)

    told = in_child(one, let_out=True, tell_at_once=watched)
    assert told == ([Sent(7), Left(7)] if watched else [])
    assert gone == [not watched], "so the end can tell"


@pytest.mark.parametrize("over", [False, True])
def test_attempt_that_goes_on_tells_soon_what_became_of_its_request(over: bool) -> None:
    told: list[Any] = []

    async def run() -> None:
        gate = GateProxy(told.append, ask_before_sending=False)
        task = asyncio.current_task()
        assert task is not None
        pending = Pending(7, let_out=True)
        gate.enter(task, pending)
        await gate.admit()
        gate.begin(task)
        gate.sent(task)
        if over:
            gate.left(task)
        await asyncio.sleep(0.2)
        assert told == ([Sent(7), Left(7)] if over else [Sent(7)])
        assert not pending.gone, "nothing is told twice"

    run_virtual(run())


@pytest.mark.parametrize("over", [False, True])
def test_request_with_the_parents_last_word_tells_when_it_was_written(over: bool) -> None:
    told: list[Any] = []

    async def run() -> None:
        gate = GateProxy(told.append, ask_before_sending=True)
        task = asyncio.current_task()
        assert task is not None
        gate.enter(task, Pending(7, let_out=True))
        await gate.admit()
        gate.begin(task)
        waiting = gate.sent(task)
        assert waiting is not None
        asyncio.get_running_loop().call_soon(gate.replied, 7, GO)
        await waiting
        assert told == [Sent(7)], "it is written now"
        if over:
            gate.left(task)
        await asyncio.sleep(0.01)
        assert told == [Sent(7), Left(7) if over else Written(7)]

    run_virtual(run())


def test_write_that_did_not_come_about_is_not_told() -> None:
    """Its connection was closed while the parent was asked; what counts is when it is written on another one."""
    told: list[Any] = []

    async def run() -> None:
        gate = GateProxy(told.append, ask_before_sending=True)
        task = asyncio.current_task()
        assert task is not None
        gate.enter(task, Pending(7, let_out=True))
        await gate.admit()
        gate.begin(task)
        for _ in range(2):
            waiting = gate.sent(task)
            assert waiting is not None
            asyncio.get_running_loop().call_soon(gate.replied, 7, GO)
            await waiting
        await asyncio.sleep(0.01)
        assert told == [Sent(7), Sent(7), Written(7)]

    run_virtual(run())


def test_second_request_of_an_attempt_asks() -> None:
    async def two(gate: GateProxy, _: Pending) -> None:
        await _one_request(gate)
        await _one_request(gate)

    assert in_child(two, let_out=True) == [Sent(7), Left(7), Admit(7), Sent(7), Left(7)]


def test_leave_that_is_not_used_at_once_is_void() -> None:
    """As when a nonce has to be waited for; the gate may have shut meanwhile."""

    async def late(gate: GateProxy, _: Pending) -> None:
        for _turn in range(3):
            await asyncio.sleep(0)
        await _one_request(gate)

    assert in_child(late, let_out=True) == [Unused(7), Admit(7), Sent(7), Left(7)]


def test_request_that_begins_late_is_told() -> None:
    async def slow(gate: GateProxy, _: Pending) -> None:
        task = asyncio.current_task()
        assert task is not None
        await gate.admit()
        for _turn in range(5):
            await asyncio.sleep(0)
        gate.begin(task)

    assert in_child(slow, let_out=False) == [Admit(7), Unused(7), Begun(7)]


def test_those_that_could_not_send_give_up_their_turn() -> None:
    """One that was let out found that it cannot send; the others that wait for the same need not be let out."""
    told: list[Any] = []

    async def run() -> None:
        gate = GateProxy(told.append, ask_before_sending=False)
        able = True

        async def attempt() -> None:
            await gate.admit(lambda: able)
            await asyncio.sleep(0.01)

        for number in (1, 2, 3):
            gate.enter(asyncio.ensure_future(attempt()), Pending(number, let_out=False))
        await asyncio.sleep(0)
        able = False
        gate.replied(1, GO)
        await asyncio.sleep(0.005)
        assert told == [Admit(1), Admit(2), Admit(3), Unused(1), Withdraw(2), Withdraw(3)]
        gate.replied(2, NOT_NOW)
        gate.replied(3, ABANDONED)
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert told[6:] == []


def test_closed_gate_lets_nothing_out() -> None:
    async def closed(gate: GateProxy, pending: Pending) -> None:
        task = asyncio.current_task()
        assert task is not None
        gate.closed = True
        with pytest.raises(Abandoned):
            await gate.admit()
        with pytest.raises(Abandoned):
            gate.sent(task)

    assert in_child(closed, let_out=True) == [Unused(7)]


def test_task_of_the_providers_own_asks_under_a_negative_number() -> None:
    async def with_nonce(gate: GateProxy, _: Pending) -> None:
        await asyncio.ensure_future(_one_request(gate))
        await asyncio.sleep(0)

    told = in_child(with_nonce, let_out=False)
    assert told == [Admit(-1), Sent(-1), Left(-1), Ended(-1)]


# The parent's side of one attempt.


def test_attempt_waits_at_the_gate_for_its_child() -> None:
    told: list[Any] = []

    async def run() -> None:
        limiter = Limiter()
        admission = Admission(limiter)
        limiter.hold("test")

        async def complete() -> Completion:
            task = asyncio.current_task()
            assert task is not None
            errands.append(Errand(1, task, admission, told.append))
            return await errands[0].outcome()

        errands: list[Errand] = []
        task = asyncio.ensure_future(complete())
        await asyncio.sleep(0)
        errands[0].ask_admission()
        await asyncio.sleep(0.01)
        assert told == []
        limiter.release("test")
        await asyncio.sleep(0.01)
        assert told == [Reply(1, GO)]
        assert task in admission.in_flight
        errands[0].unused()
        assert task not in admission.in_flight
        assert limiter.admitted == 0, "what did not go out is not counted"
        errands[0].settle(Completion(text="yes"))
        assert (await task).text == "yes"

    asyncio.run(run())


async def test_request_whose_attempt_is_over_is_not_let_go() -> None:
    task, told = asyncio.current_task(), []
    assert task is not None
    errand = Errand(1, task, Admission(Limiter()), told.append)
    errand.settle(Completion(text="yes"))
    await errand.may_send()
    assert told == [Reply(1, ABANDONED)]


async def test_request_that_was_not_sent_after_all_leaves_the_time_of_the_first_that_was() -> None:
    task, admission = asyncio.current_task(), Admission(Limiter())
    assert task is not None
    await admission.expect(ChatRequest(messages=[]), task)
    first = Errand(1, task, admission, lambda _: None)
    first.begin()
    first.unused()
    assert admission.began_at(task) is None
    first.begin()
    first.sent()
    first.left()
    began_at = admission.began_at(task)
    again = Errand(2, task, admission, lambda _: None)
    again.begin()
    again.unused()
    assert began_at is not None
    assert admission.began_at(task) == began_at


@pytest.mark.parametrize("whole", [True, False])
def test_child_has_the_last_word_on_what_is_to_end(whole: bool) -> None:
    async def run() -> None:
        told: list[Any] = []
        errands: list[Errand] = []

        async def complete() -> Completion:
            task = asyncio.current_task()
            assert task is not None
            errands.append(Errand(1, task, Admission(Limiter()), told.append))
            return await errands[0].outcome()

        task = asyncio.ensure_future(complete())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert told == [Cancel(1)]
        assert not task.done()
        if whole:
            errands[0].settle(Completion(text="yes"))
            assert (await task).text == "yes"
        else:
            errands[0].ended(abandoned=False)
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


def test_child_that_says_nothing_of_what_is_to_end_is_not_waited_for() -> None:
    async def run() -> None:
        async def complete() -> Completion:
            task = asyncio.current_task()
            assert task is not None
            return await Errand(1, task, Admission(Limiter()), lambda _: None).outcome()

        task = asyncio.ensure_future(complete())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() < 1060

    run_virtual(run())


def test_error_is_raised_in_its_task() -> None:
    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        errand = Errand(1, task, Admission(Limiter()), lambda _: None)
        errand.settle(ServerError("why"))
        errand.settle(Completion(text="too late"))
        with pytest.raises(ServerError, match="why"):
            await errand.outcome()

    asyncio.run(run())


# One nonce for all.


class Desk:
    """A desk, and what it told each of three children."""

    def __init__(self) -> None:
        self.desk = NonceDesk()
        self.told: dict[str, list[str | None]] = {"a": [], "b": [], "c": []}
        self.tells = {name: self._teller(name) for name in self.told}

    def _teller(self, name: str) -> Callable[[Any], None]:
        def tell(message: NonceGiven) -> None:
            self.told[name].append(message.value)

        return tell


def test_one_child_fetches_for_all() -> None:
    made = Desk()
    for name in "abc":
        made.desk.wanted(made.tells[name], None)
    assert made.told == {"a": [None], "b": [], "c": []}
    made.desk.kept(made.tells["a"], "n1", 0.0)
    assert made.told == {"a": [None], "b": ["n1"], "c": ["n1"]}
    made.desk.wanted(made.tells["b"], "n1")
    made.desk.wanted(made.tells["a"], "n1")
    made.desk.kept(made.tells["b"], "n2", 0.0)
    assert made.told == {"a": [None, "n2"], "b": ["n1", None], "c": ["n1"]}
    made.desk.wanted(made.tells["c"], "n1")
    assert made.told["c"] == ["n1", "n2"], "a refusal that comes late refreshes nothing"


@pytest.mark.parametrize("way", ["failed", "gone while waiting"])
def test_turn_of_a_child_that_gets_no_nonce_is_the_next_ones(way: str) -> None:
    made = Desk()
    for name in "abc":
        made.desk.wanted(made.tells[name], None)
    if way == "gone while waiting":
        made.desk.failed(made.tells["b"])
    made.desk.failed(made.tells["a"])
    assert made.told == (
        {"a": [None], "b": [None], "c": []} if way == "failed" else {"a": [None], "b": [], "c": [None]}
    )


def test_nonce_that_an_answer_offered_is_given_to_those_who_wait() -> None:
    made = Desk()
    made.desk.wanted(made.tells["a"], None)
    made.desk.wanted(made.tells["b"], None)
    made.desk.kept(made.tells["c"], "offered", 0.0)
    assert made.told == {"a": [None], "b": ["offered"], "c": []}


# Children that do not run.


@pytest.mark.parametrize(
    ("alive", "at_work", "stuck_at"), [(True, True, None), (False, True, 40.0), (False, False, None)]
)
def test_silent_child_is_asked_and_given_up(alive: bool, at_work: bool, stuck_at: float | None) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        began, stuck = loop.time(), []

        def ask() -> None:
            if alive:
                watch.heard_at = loop.time()

        watch = SilenceWatch(
            30.0, at_work=lambda: at_work, ask=ask, stuck=lambda: stuck.append(round(loop.time() - began))
        )
        watch.begin()
        await asyncio.sleep(200)
        watch.end()
        assert stuck == ([] if stuck_at is None else [stuck_at])

    run_virtual(run())


async def test_other_end_can_begin_before_this_one_has_told_all() -> None:
    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            self.frames: list[list[Any]] = []

        def write(self, data: Any) -> None:
            self.frames.append(msgspec.msgpack.decode(data[8:], type=list[ToChild]))

    wire, told = Wire(), [Cancel(number) for number in range(21)]
    channel: Channel[Any] = Channel(FromChild, lambda messages: None, lambda: None)
    channel.connection_made(wire)
    for message in told:
        channel.tell(message)
    assert wire.frames == [told[:8], told[8:16]], "most was told within the turn of the loop"
    await asyncio.sleep(0)
    assert [message for frame in wire.frames for message in frame] == told


async def test_nothing_goes_after_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel: Channel[Any] = Channel(FromChild, lambda messages: None, lambda: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        channel.tell(Cancel(1))
        channel.end()
        for number in range(2, 30):
            channel.tell(Cancel(number))
        channel.end()
        await asyncio.sleep(0)
        with theirs.makefile("rb") as frames:
            assert msgspec.msgpack.decode((await asyncio.to_thread(frames.read))[8:], type=list[ToChild]) == [Cancel(1)]
        channel.close()


def test_frame_that_msgpack_cannot_carry_is_json() -> None:
    """Half a surrogate pair has no UTF-8."""
    frame = frame_of([Done(1, Completion(text="\ud83d"))], msgspec.msgpack.Encoder())
    assert json.loads(frame[8:])[0][2]["text"] == "\ud83d"
