"""The desk of a run on a cluster, without a cluster: budget, stop rules, nonce, words, and what outlives it."""

import asyncio
import itertools
import random
from collections import Counter
from decimal import Decimal

import msgspec
import pytest

from batchchat.config import load_job
from batchchat.durations import Rate
from batchchat.errors import AuthError, ServerError
from batchchat.leases import Ask, DeskAwayError
from batchchat.observer import Observers
from batchchat.processes.messages import CarriedError
from batchchat.ray import desk as desk_module
from batchchat.ray.desk import Desk
from batchchat.ray.desk_budget import DeskBudget
from batchchat.ray.desk_line import DeskLine, DeskNonce
from batchchat.ray.desk_memory import DeskMemory, Remembered
from batchchat.ray.desk_worker import DeskWorker
from batchchat.ray.driver import RayAsking
from batchchat.ray.ledger import BudgetAsk, BudgetLedger
from batchchat.ray.words import DRAIN, GO, DeskOpening, FailedAttempt, FailedPrompt, Figures, Sight, Told, Word
from batchchat.records import Usage
from batchchat.stopping import StopReason

numbers = itertools.count(1)


def opening(tmp_path, **more):
    return DeskOpening(
        **{
            "rates": (),
            "burst": 1,
            "tokens_per_minute": None,
            "budget_usd": None,
            "rules": {},
            "memory": str(tmp_path / "desk"),
            **more,
        }
    )


def failed(n, error=None, answers=0):
    return FailedPrompt(f"q-{n}", None if error is None else CarriedError.of(error), answers)


def told(worker=1, life="a", failures=(), **figures):
    return Told(worker=worker, life=life, number=next(numbers), figures=Figures(**figures), failures=tuple(failures))


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("limit", ["0.5", "3", "20"])
@pytest.mark.parametrize("seed", range(4))
async def test_the_budget_is_never_exceeded_and_is_used_up(tmp_path, workers, limit, seed):
    """However requests of many workers come and go, holds and costs together stay within the budget of all, and what
    is left in the end is less than one request takes."""
    chance = random.Random(seed)
    desk = Desk(opening(tmp_path, budget_usd=float(limit)))
    over: list[str] = []
    budgets = [DeskBudget(Decimal(limit), over.append, desk=desk, life=lambda n=n: f"w{n}") for n in range(workers)]

    async def hear():
        revision = -1
        while True:
            word = await desk.hear(revision)
            revision = word.revision
            for budget in budgets:
                budget.short(word.give_back)

    total = lambda: sum(b._cost + b._held for b in budgets)  # noqa: E731

    class Price:
        def cost(self, usage):
            return Decimal(usage.output_tokens) / 100

    async def ask(budget):
        while not over:
            held = await budget.hold(Decimal("0.1"), alone=Decimal("0.02"))
            assert total() <= Decimal(limit)
            await asyncio.sleep(chance.random() / 1000)
            budget.spend(Usage(output_tokens=chance.randint(1, 9 if held > Decimal("0.05") else 2)), Price(), "m")
            budget.release(held)

    tasks = [asyncio.create_task(ask(budget)) for budget in budgets for _ in range(3)]
    tasks.append(asyncio.create_task(hear()))
    async with asyncio.timeout(20):
        while not over:
            await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert Decimal(limit) - Decimal("0.1") <= total() <= Decimal(limit)
    assert "allows no further request" in over[0]


def test_what_a_dead_worker_was_granted_counts_as_spent():
    """It may have spent it; and a desk that comes again knows what it granted."""
    ledger = BudgetLedger(Decimal(1), {"before": Decimal("0.25")})
    ledger.ask(BudgetAsk(life="a", number=1, have=Decimal(0), spent=Decimal(0), want=Decimal("0.5"), holds=0))
    assert ledger.grants()["a"].usd == Decimal("0.5")
    ledger.lost("before")
    ledger.lost("a")
    ledger.ask(
        BudgetAsk(life="b", number=1, have=Decimal(0), spent=Decimal(0), want=Decimal("0.3"), alone=Decimal("0.3"))
    )
    assert ledger.grants()["b"].exhausted


@pytest.mark.parametrize("lives", [1, 2])
async def test_failures_of_all_workers_count_together(tmp_path, lives):
    """``max_failures`` is one number, also where the desk was started anew meanwhile."""
    desk = Desk(opening(tmp_path, rules={"max_failures": 5}))
    await desk.tell(told(1, "a", [failed(n) for n in range(3)], failed=3))
    if lives == 2:
        desk = Desk(opening(tmp_path, rules={"max_failures": 5}))
    word = await desk.tell(told(2, "b", [failed(n) for n in range(2)], failed=2))
    assert word.stage == GO
    word = await desk.tell(told(1, "a", [failed(9)], failed=4))
    assert word.stage == DRAIN
    sight = await desk.look()
    assert (sight.stop.kind, sight.stop.message) == ("limit", "6 prompts failed, more than --max-failures 5")


async def test_refusals_in_a_row_are_in_a_row_over_all(tmp_path):
    """Three workers with one refusal each have met three; an answer between them starts anew."""
    desk = Desk(opening(tmp_path))
    refused = AuthError("the key was refused")
    await desk.tell(told(1, "a", [failed(1, refused)]))
    await desk.tell(told(2, "b", [failed(2, refused), failed(3, refused, answers=1)]))
    assert (await desk.look()).stop is None
    await desk.tell(told(3, "c", [failed(4, refused)]))
    await desk.tell(told(1, "a", [failed(5, refused)]))
    assert (await desk.look()).stop.message.startswith("3 prompts in a row met: auth")


async def test_figures_of_every_life_of_a_worker_add_up(tmp_path):
    """What a worker did before it died stays counted, also by a desk that comes again; it has nothing on the wire."""
    desk = Desk(opening(tmp_path))
    await desk.tell(told(1, "a", requests=5, in_flight=3, attempts={"answered": 2}))
    await desk.tell(told(2, "b", requests=7, in_flight=1, attempts={"answered": 6, "server": 1}))
    await desk.tell(told(1, "c", requests=1, in_flight=1))
    figures = (await desk.look()).figures
    assert (figures.requests, figures.in_flight, figures.attempts) == (13, 2, {"answered": 8, "server": 1})
    again = await Desk(opening(tmp_path)).look()
    assert again.figures.requests >= 12


async def test_a_word_reaches_those_who_wait_for_it(tmp_path):
    """Stage and end of the input are heard at once; a notice is told once for all workers."""
    desk = Desk(opening(tmp_path))
    first = await desk.hear(-1)
    waiting = asyncio.create_task(desk.hear(first.revision))
    await asyncio.sleep(0)
    await desk.set_stage(DRAIN, True)
    word = await waiting
    assert (word.stage, word.all_cut) == (DRAIN, True)
    for life in "ab":
        await desk.tell(Told(worker=1, life=life, figures=Figures(), notices=(("a sentence", 0),)))
    assert (await desk.look(-1, False)).notices == ()
    assert (await desk.look()).notices == (("a sentence", 0),)
    assert (await desk.look()).notices == ()


async def test_one_worker_gets_the_nonce_for_all(tmp_path):
    """The others wait for it; where that one dies, the next is to get it."""
    desk = Desk(opening(tmp_path))
    first, second, third = (DeskNonce(desk, lambda life=life: life) for life in "abc")
    for number, life in enumerate("abc"):
        await desk.tell(told(number, life))
    assert await first.take((), 100) is None
    others = [asyncio.create_task(each.take((), 100)) for each in (second, third)]
    await asyncio.sleep(0)
    await desk.lost(0)
    assert await others[0] is None
    second.keep("n0nce", 1.0)
    value, age_s = await others[1]
    assert (value, 1.0 <= age_s < 60) == ("n0nce", True)
    assert await third.take({"n0nce"}, 100) is None  # it was refused: somebody has to get another


def test_an_error_keeps_what_decides_about_it():
    """Type, words and whether it stops a run travel to the desk."""
    error = CarriedError.of(ServerError("gone", status=502, stops_run=True)).error()
    assert (error.type, error.message, error.status, error.stops_run) == ("server", "gone", 502, True)


@pytest.mark.parametrize("why", ["failures", "a worker"])
async def test_stop_is_known_to_a_desk_that_begins_again(tmp_path, why):
    """Workers that heard of it send nothing more, so the driver has to hear of it too."""
    settings = opening(tmp_path, rules={"max_failures": 5})
    reason = StopReason(kind="service", message="the key was refused")
    desk = Desk(settings)
    if why == "failures":
        word = await desk.tell(told(1, "a", [failed(n) for n in range(6)], failed=6))
    else:
        word = await desk.tell(Told(worker=1, life="a", figures=Figures(), stop=reason))
    assert word.stage == DRAIN
    again = Desk(settings)
    assert (await again.hear(-1)).stage == DRAIN
    stop = (await again.look()).stop
    assert stop == (reason if why == "a worker" else (await desk.look()).stop)


async def test_desk_that_died_before_it_judged_its_failures_judges_them_when_it_begins_again(tmp_path):
    """Failures that are in its file and go beyond the limit are a reason to stop, whoever wrote them."""
    settings = opening(tmp_path, rules={"max_failures": 5})
    desk_memory = DeskMemory(f"{settings.memory}-figures")
    desk_memory.write(Remembered(figures={"a": Figures(failed=4), "b": Figures(failed=2)}), 0.0)
    stop = (await Desk(settings).look()).stop
    assert stop.message == "6 prompts failed, more than --max-failures 5"


class Moved:
    """The desk as workers reach it, wherever it is at the moment, and the words that their budgets hear."""

    def __init__(self, settings):
        self.settings, self.desk = settings, Desk(settings)
        self.budgets, self.over, self.calls = [], [], Counter()
        self.word = self.hearing = None

    def grant(self, ask):
        return self._call("grant", ask)

    def update_budget(self, ask):
        return self._call("update_budget", ask)

    async def _call(self, name, ask):
        self.calls[name] += 1
        await asyncio.sleep(0)
        return await getattr(self.desk, name)(ask)

    def budget(self, life):
        limit = Decimal(repr(self.settings.budget_usd))
        self.budgets.append(DeskBudget(limit, self.over.append, desk=self, life=lambda: life))
        return self.budgets[-1]

    async def begin_again(self):
        """All workers had heard the last word of the desk."""
        self.word = await self.desk.hear(-1)
        self.stop()
        self.desk = Desk(self.settings)

    def listen(self):
        """From now on each budget is told what its worker hears."""
        self.hearing = self.hearing or asyncio.create_task(self._listen())

    def stop(self):
        if self.hearing is not None:
            self.hearing.cancel()
            self.hearing = None

    async def _listen(self):
        while True:
            before, self.word = self.word, await self.desk.hear(-1 if self.word is None else self.word.revision)
            self.calls["hear"] += 1
            await asyncio.sleep(0)
            for budget in self.budgets:
                budget.short(self.word.give_back)
                if before is not None and before.desk != self.word.desk:
                    budget.desk_began_again()


class PerToken:
    def cost(self, usage):
        return Decimal(usage.output_tokens) / 100


async def turns(count=200):
    """So many turns of the loop, in which all that waits for no time goes on."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("first", ["asks", "gives back", "hears"])
async def test_budget_that_is_not_spent_is_there_after_the_desk_began_again(tmp_path, first):
    """B was granted 0.6 and A waits for it: whoever speaks first, A gets its part once B has given back."""
    moved = Moved(opening(tmp_path, budget_usd=1.0))
    a, b = moved.budget("a"), moved.budget("b")
    held = [await b.hold(Decimal("0.3")) for _ in range(2)]
    b.short(True)
    await moved.begin_again()
    if first == "hears":
        moved.listen()
    if first == "gives back":
        b.release(held.pop())
    await turns()
    asking = asyncio.create_task(a.hold(Decimal("0.8")))
    await turns()
    assert not moved.over
    assert not asking.done()
    moved.listen()
    while held:
        await turns()
        b.release(held.pop())
    await turns()
    assert not moved.over
    assert asking.done()
    moved.stop()


async def test_worker_that_is_idle_tells_a_desk_that_begins_again_how_it_does(tmp_path):
    """Who waits would wait for ever for what it does not have."""
    moved = Moved(opening(tmp_path, budget_usd=1.0))
    idle, other = moved.budget("a"), moved.budget("b")
    held = await idle.hold(Decimal("0.6"))
    idle.spend(Usage(output_tokens=60), PerToken(), "m")
    idle.release(held)
    await moved.begin_again()
    asking = asyncio.create_task(other.hold(Decimal("0.5")))
    await turns()
    assert not moved.over
    moved.listen()
    await turns()
    assert len(moved.over) == 1
    asking.cancel()
    moved.stop()


@pytest.mark.parametrize("told_before", [True, False])
async def test_worker_that_was_given_up_is_not_waited_for_after_the_desk_began_again(tmp_path, told_before):
    """Neither where it was given up before that, nor after."""
    settings = opening(tmp_path, budget_usd=1.0)
    moved = Moved(settings)
    await moved.desk.tell(told(1, "a"))
    await moved.budget("a").hold(Decimal("0.6"))
    if told_before:
        await moved.desk.gone(1)
    await moved.begin_again()
    asking = asyncio.create_task(moved.budget("b").hold(Decimal("0.5")))
    await turns()
    if not told_before:
        assert not moved.over
        await moved.desk.gone(1)
        await turns()
    assert len(moved.over) == 1
    asking.cancel()


async def test_update_that_comes_a_second_time_takes_back_nothing_that_was_granted_since(tmp_path):
    """Ray repeats calls whose answers went down with the desk: also one from before a grant that was told."""
    settings = opening(tmp_path, budget_usd=1.0)
    ask = BudgetAsk(life="a", number=1, have=Decimal(0), spent=Decimal(0), want=Decimal("0.1"))
    desk = Desk(settings)
    await desk.grant(ask)
    given = BudgetAsk(life="a", number=1, have=Decimal(0), spent=Decimal(0))
    await desk.update_budget(given)
    granted = await desk.grant(msgspec.structs.replace(ask, number=2, want=Decimal("0.9")))
    again = Desk(settings)
    await again.update_budget(given)
    assert again._ledger.granted == {"a": granted.usd}


async def test_word_of_the_desk_is_heard_at_once_where_it_begins_again(tmp_path):
    """However few changes there were before and since."""
    before = await Desk(opening(tmp_path)).hear(-1)
    asked = asyncio.create_task(Desk(opening(tmp_path)).hear(before.revision))
    await turns()
    assert asked.result().desk > before.desk
    assert asked.result().revision > before.revision


def test_late_word_of_a_desk_changes_nothing_and_another_desk_is_told_of_the_budget():
    """Answers to what a worker tells and to what it asks overtake each other."""
    seen = []

    class Seen:
        def short(self, short):
            seen.append(short)

        def desk_began_again(self):
            seen.append("again")

    worker = DeskWorker(1, None, {}, None, None)
    worker._budget = Seen()
    worker._heard(Word(desk=10, revision=12, give_back=True))
    worker._heard(Word(desk=10, revision=11, give_back=False))
    assert seen == [True]
    worker._heard(Word(desk=5, revision=5))  # on a machine whose clock is behind, and that cannot read the file
    assert seen == [True, False, "again"]


async def test_desk_that_cannot_open_the_file_of_its_leases_is_away_until_it_can(tmp_path):
    """Its workers ask again for a while; what else it is asked for goes on."""
    (tmp_path / "folder").write_text("a file")
    desk = Desk(opening(tmp_path, rates=(Rate(5, 1.0),), memory=str(tmp_path / "folder" / "desk")))
    with pytest.raises(DeskAwayError):
        await desk.exchange(Ask(worker="w"))
    assert (await desk.tell(told())).stage == GO
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    assert (await desk.exchange(Ask(worker="w"))).rates == (Rate(5, 1.0),)


async def test_what_is_told_a_second_time_counts_once(tmp_path):
    """Ray repeats what was told where the answer went down with the desk, which had written it to its file."""
    settings = opening(tmp_path, rules={"max_failures": 5})
    once = told(1, "a", [failed(n) for n in range(3)], failed=3, completed=4)
    await Desk(settings).tell(once)
    desk = Desk(settings)
    assert (await desk.tell(once)).stage == GO
    figures = (await desk.look()).figures
    assert (figures.failed, figures.completed) == (3, 4)
    assert (await desk.tell(told(1, "a", [failed(n) for n in range(3, 5)], failed=5))).stage == GO
    assert (await desk.tell(told(1, "a", [failed(5)], failed=6))).stage == DRAIN


async def test_notices_and_reasons_that_are_told_a_second_time_are_not_lost(tmp_path):
    """They are in no file of the desk's that went down."""
    settings = opening(tmp_path)
    reason = StopReason(kind="service", message="the key was refused")
    once = msgspec.structs.replace(told(1, "a", [failed(1)], failed=1), notices=(("a sentence", 0),), stop=reason)
    await Desk(settings).tell(once)
    sight = await (again := Desk(settings)).look()
    assert sight.notices == ()
    await again.tell(once)
    sight = await again.look()
    assert (sight.notices, sight.stop) == ((("a sentence", 0),), reason)


async def test_each_telling_of_a_worker_has_a_number_of_its_own():
    heard = []

    class Heard:
        async def tell(self, told):
            heard.append(told.number)
            return Word(desk=1, revision=1)

        async def hear(self, revision):
            await asyncio.Event().wait()

    figures = iter(range(9))
    line = DeskLine(
        Heard(),
        told=lambda: Told(worker=1, life="a", figures=Figures(requests=next(figures))),
        heard=lambda word: None,
        acknowledged=lambda: None,
        failed=heard.append,
    )
    async with line:
        line.hurry()
        await turns()
    assert heard == [1, 2, 3]


@pytest.mark.parametrize("again", [False, True])
async def test_late_word_of_an_old_life_harms_no_new_one(tmp_path, again):
    """A worker that was taken to be dead talks once more, to this desk or to the next one: what it did counts, and
    the life that came in its place stays in each line."""
    settings = opening(tmp_path, budget_usd=1.0)
    moved = Moved(settings)
    for worker, life in ((1, "old"), (2, "other"), (1, "new")):
        await moved.desk.tell(told(worker, life, requests=1, in_flight=1))
    if again:
        await moved.begin_again()
    desk = moved.desk
    held = await moved.budget("other").hold(Decimal("0.9"))
    asking = asyncio.create_task(moved.budget("new").hold(Decimal("0.5")))
    assert await desk.take_nonce("other", None) is None
    waiting = asyncio.create_task(desk.take_nonce("new", None))
    await turns()
    reason = StopReason(kind="service", message="the desk of the run is gone")
    await desk.tell(msgspec.structs.replace(told(1, "old", requests=5, in_flight=1), stop=reason))
    await desk.tell(told(1, "new", requests=1, in_flight=1))
    await desk.keep_nonce("other", "n0nce", 0.0)
    moved.budgets[0].release(held)
    moved.listen()
    await turns()
    assert waiting.result()[0] == "n0nce"
    assert asking.done()
    sight = await desk.look()
    assert (sight.figures.requests, sight.figures.in_flight, sight.stop) == (7, 2, None)
    moved.stop()


async def test_old_life_takes_no_place_in_a_line(tmp_path):
    """Nobody would know when it is gone for good, and others would wait for it."""
    moved = Moved(opening(tmp_path, budget_usd=1.0))
    for life in ("old", "new"):
        await moved.desk.tell(told(1, life))
    assert await moved.desk.take_nonce("old", None) is None
    async with asyncio.timeout(20):
        assert await moved.desk.take_nonce("new", None) is None
    asking = asyncio.create_task(moved.budget("old").hold(Decimal("0.5")))
    await turns()
    assert len(moved.over) == 1
    assert await moved.budget("new").hold(Decimal("1.0")) == 1
    asking.cancel()


def noticed(sentence, attempts=()):
    return msgspec.structs.replace(told(), notices=((sentence, 0),), attempts=tuple(attempts))


async def test_call_that_nobody_waits_for_any_more_takes_no_notice_away(tmp_path, monkeypatch):
    """The driver gives up waiting at the end of a run; at the desk the call goes on."""
    monkeypatch.setattr(desk_module, "_SIGHT_S", 0.0)
    desk = Desk(opening(tmp_path))
    seen = (await desk.watch(-1)).revision
    orphan = asyncio.create_task(desk.watch(seen))
    await turns()
    attempt = FailedAttempt("q", 1, CarriedError.of(ServerError("gone")), True)
    await desk.tell(noticed("the nonce cannot be kept", [attempt]))
    assert (await orphan).notices == (("the nonce cannot be kept", 0),)
    last = await desk.look(seen)
    assert last.notices == (("the nonce cannot be kept", 0),)
    assert [each.id for each in last.attempts] == ["q"]


async def test_driver_hears_each_notice_once(tmp_path, monkeypatch):
    """Also where an answer was lost and Ray repeats the call, and where the desk begins again."""
    monkeypatch.setattr(desk_module, "_SIGHT_S", 0.0)
    desk, heard, seen = Desk(opening(tmp_path)), [], -1
    for number in range(6):
        if number == 3:
            desk = Desk(opening(tmp_path))
        await desk.tell(noticed(f"sentence {number}"))
        await desk.watch(seen)  # its answer was lost
        sight = await (desk.look(seen) if number == 5 else desk.watch(seen))
        heard.extend(sentence for sentence, _ in sight.notices)
        seen = sight.revision
    assert heard == [f"sentence {number}" for number in range(6)]


async def test_driver_says_which_notices_it_has(monkeypatch):
    """What it has taken in of the desk's words, also where it asks for the last time."""
    asked = []

    class Watched:
        async def watch(self, revision):
            asked.append(("watch", revision))
            if revision == 7:
                await asyncio.Event().wait()
            return Sight(desk=1, revision=7, figures=Figures())

        async def look(self, revision=-1, whole=True):
            asked.append(("look", revision) if whole else "a look that takes nothing")
            return Sight(desk=1, revision=8, figures=Figures())

    job = load_job(None, {"input": ["in.jsonl"], "provider": {"name": "ai-engine", "base_url": "http://x"}})
    driver = RayAsking(job, Observers([]), {}, lambda reason: None)
    driver._desk = Watched()
    watch = asyncio.create_task(driver._watch(driver._desk))
    await turns()
    await driver._end_watch(watch)
    assert asked == [("watch", -1), ("watch", 7), "a look that takes nothing", ("look", 7)]


@pytest.mark.parametrize("pause", range(6))
async def test_who_waits_for_the_budget_costs_few_messages_and_gets_what_is_given_back(tmp_path, pause):
    """What is released while an older state is on its way to the desk is told after that."""
    moved = Moved(opening(tmp_path, budget_usd=1.0))
    a, b = moved.budget("a"), moved.budget("b")
    moved.budget("c"), moved.budget("d")
    moved.listen()
    held = [await b.hold(Decimal("0.3")) for _ in range(3)]
    asking = asyncio.create_task(a.hold(Decimal("1.0")))
    await turns()
    calls = moved.calls.copy()
    await turns(1000)
    assert moved.calls == calls
    for each in held:
        b.release(each)
        await turns(pause)
    await turns()
    assert asking.done()
    assert (moved.calls - calls).total() < 20
    moved.stop()


@pytest.mark.parametrize("again", [False, True])
async def test_what_a_closed_worker_did_not_spend_is_there_for_others(tmp_path, again):
    """A stage may be consumed twice, by other workers at the same desk; nobody waits for those of before."""
    moved = Moved(opening(tmp_path, budget_usd=1.0))
    closed = moved.budget("old")

    line = DeskLine(
        moved.desk,
        told=lambda: Told(worker=1, life=line.life, figures=Figures(in_flight=1)),
        heard=lambda word: None,
        acknowledged=lambda: None,
        failed=moved.over.append,
    )
    line.life = "old"
    async with line:
        held = [await closed.hold(Decimal("0.1")) for _ in range(9)]
        for each in held:
            closed.spend(Usage(output_tokens=1), PerToken(), "m")
            closed.release(each)
        await closed.close()
    assert (await moved.desk.look()).figures.in_flight == 0
    if again:
        await moved.begin_again()
    other = moved.budget("new")
    assert await other.hold(Decimal("0.91")) == Decimal("0.91")
    asking = asyncio.create_task(other.hold(Decimal("0.01")))
    other.spend(Usage(output_tokens=91), PerToken(), "m")
    other.release(Decimal("0.91"))
    await turns()
    assert len(moved.over) == 1
    asking.cancel()
