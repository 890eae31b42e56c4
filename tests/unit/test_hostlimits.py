"""One limit over several processes: in virtual time, with real files, with deaths, stops, and files that are garbled."""

import heapq
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.devserver.state import worst_window
from batchchat.durations import Rate
from batchchat.hostlimits import events as e
from batchchat.hostlimits import service_digest
from batchchat.hostlimits.events import Event, dump_events, load_events
from batchchat.hostlimits.folding import fold_events
from batchchat.hostlimits.ledger import Later, Ledger, Start
from batchchat.hostlimits.place import boot_id

SERVICE = service_digest("openai", [("https://api.example.org/v1", "sk-secret")])


OPENED: list[Ledger] = []


@pytest.fixture(autouse=True)
def _close_ledgers() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().disown()


class Machine:
    """Processes in virtual time: each is a generator that yields how long it waits."""

    def __init__(self, folder: Path, *, seed: int = 0, late_s: float = 0.001) -> None:
        self.folder, self.now, self.late_s = folder, 1000.0, late_s
        self.random = random.Random(seed)
        self.arrivals: list[tuple[float, Ledger]] = []
        self.tokens: list[tuple[float, float]] = []
        self.told: list[str] = []
        self._due: list[tuple[float, int, Iterator[float]]] = []
        self._count = 0

    def ledger(self, rates: list[Rate], **options) -> Ledger:
        made = Ledger(self.folder, SERVICE, rates, clock=lambda: self.now, tell=self.told.append, **options)
        made.open()
        OPENED.append(made)
        return made

    def start(self, process: Iterator[float], *, after_s: float = 0.0) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + after_s, self._count, process))

    def run(self, until_s: float = float("inf")) -> None:
        while self._due and self._due[0][0] <= until_s:
            at, _, process = heapq.heappop(self._due)
            self.now = max(self.now, at) + 1e-9
            try:
                self.start(process, after_s=next(process) + self.late_s)
            except StopIteration:
                continue

    def locked(self, ledger: Ledger, work: Callable[[], object]):
        assert ledger.try_lock()
        try:
            return work()
        finally:
            ledger.unlock()

    def sender(
        self, ledger: Ledger, count: int, *, tokens: float = 0.0, delay: Callable[[], float] = lambda: 0.0
    ) -> Iterator[float]:
        """Sends so many requests as fast as it may; ``delay`` is drawn between any two of its steps."""
        while count:
            found = self.locked(ledger, lambda: ledger.reserve(tokens))
            if isinstance(found, Later):
                yield max(0.0, found.at - self.now)
                continue
            yield max(0.0, found.at - self.now)
            yield delay()
            if not self.locked(ledger, lambda found=found: ledger.leave(found.seq)):
                continue
            yield delay()
            self.arrivals.append((self.now, ledger))
            self.tokens.append((self.now, tokens))
            count -= 1
            yield delay()
            ledger.land(found.seq)
            if self.random.random() < 0.5:
                self.locked(ledger, ledger.flush)
            yield 0.0
        self.locked(ledger, ledger.flush)

    def times(self) -> list[float]:
        return sorted(at for at, _ in self.arrivals)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("rate", [Rate(200, 1.0), Rate(20, 1.0), Rate(3, 1.0), Rate(120, 60.0)])
def test_processes_share_one_rate_use_it_up_and_are_treated_alike(tmp_path, processes, rate) -> None:
    machine = Machine(tmp_path)
    each = 6 * rate.count // processes
    ledgers = [machine.ledger([rate]) for _ in range(processes)]
    for ledger in ledgers:
        machine.start(machine.sender(ledger, each))
    machine.run()
    times = machine.times()
    assert worst_window(times, rate.per_s) <= rate.count
    assert (len(times) - 1) / (times[-1] - times[0]) >= 0.985 * rate.count / rate.per_s
    halves = machine.arrivals[: len(times) // 2]
    for ledger in ledgers:
        assert sum(by is ledger for _, by in halves) >= 0.8 * len(halves) / processes - 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.sampled_from([1.0, 60.0]), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6),
    st.floats(0, 0.2),
)  # fmt: skip
def test_no_pattern_of_stops_and_deaths_breaks_a_window(tmp_path_factory, count, per_s, burst, processes, seed, odds):
    """A process may stop between any two steps, for longer than any lease, or die there."""
    machine = Machine(tmp_path_factory.mktemp("limits"), seed=seed, late_s=0.0)
    rnd = machine.random

    def delay() -> float:
        return rnd.uniform(0.5, 3 * per_s) if rnd.random() < odds else rnd.uniform(0, 0.004)

    def mortal(process: Iterator[float], ledger: Ledger) -> Iterator[float]:
        for wait_s in process:
            if rnd.random() < odds / 20:
                ledger.disown()
                return
            yield wait_s

    for _ in range(processes):
        ledger = machine.ledger([Rate(count, per_s)], burst=burst)
        machine.start(mortal(machine.sender(ledger, 3 * count, delay=delay), ledger), after_s=rnd.uniform(0, per_s))
    survivor = machine.ledger([Rate(count, per_s)], burst=burst)
    machine.start(machine.sender(survivor, 3 * count))
    machine.run()
    assert worst_window(machine.times(), per_s) <= count
    assert sum(by is survivor for _, by in machine.arrivals) == 3 * count


@pytest.mark.parametrize("moment", ["reserved", "leaving"])
@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_who_is_gone_blocks_the_others_for_no_longer_than_a_window(tmp_path, moment, end) -> None:
    """But for one that is stopped in the instant in which it writes: it may still send, so it counts."""
    machine = Machine(tmp_path)
    rate = Rate(1, 1.0)
    gone, other = machine.ledger([rate]), machine.ledger([rate])
    found = machine.locked(gone, lambda: gone.reserve(0.0))
    assert isinstance(found, Start)
    if moment == "leaving":
        assert machine.locked(gone, lambda: gone.leave(found.seq))
    if end == "killed":
        gone.disown()
    machine.start(machine.sender(other, 1))
    machine.run(1060.0)
    if (moment, end) == ("leaving", "stopped"):
        assert not machine.arrivals
        machine.arrivals.append((machine.now, gone))
        gone.land(found.seq)
        machine.locked(gone, gone.flush)
        machine.run(1100.0)
        assert worst_window(machine.times(), 1.0) == 1
        assert len(machine.arrivals) == 2
    else:
        assert machine.arrivals[0][0] < 1000.0 + 6.0
        if end == "stopped":
            assert not machine.locked(gone, lambda: gone.leave(found.seq))


def test_two_rates_under_one_key_each_count_everybodys_requests(tmp_path) -> None:
    machine = Machine(tmp_path)
    fast, slow = machine.ledger([Rate(20, 1.0)]), machine.ledger([Rate(5, 1.0)])
    machine.start(machine.sender(fast, 60))
    machine.start(machine.sender(slow, 10))
    machine.run()
    assert worst_window(machine.times(), 1.0) <= 20
    for at in (at for at, by in machine.arrivals if by is slow):
        assert sum(at - 1.0 < other <= at for other in machine.times()) <= 5
    assert sum(by is slow for _, by in machine.arrivals) == 10


def test_several_rates_hold_together_and_an_earlier_run_counts(tmp_path) -> None:
    machine = Machine(tmp_path)
    first = machine.ledger([Rate(50, 1.0)])
    machine.start(machine.sender(first, 40))
    machine.run()
    first.close()
    second = machine.ledger([Rate(50, 1.0), Rate(60, 60.0)])
    machine.start(machine.sender(second, 40))
    machine.run()
    assert worst_window(machine.times(), 60.0) <= 60
    assert len(machine.arrivals) == 80


@pytest.mark.parametrize("large", [100.0, 900.0, 5000.0])
def test_tokens_of_all_processes_hold_in_every_minute_and_nobody_starves(tmp_path, large) -> None:
    machine = Machine(tmp_path)
    for tokens, count in ((30.0, 150), (30.0, 150), (large, 3)):
        ledger = machine.ledger([], tokens_per_minute=1000)
        machine.start(machine.sender(ledger, count, tokens=tokens), after_s=tokens / 1000)
    machine.run()
    for at, _ in machine.tokens:
        spent = [tokens for other, tokens in machine.tokens if at - 60.0 < other <= at]
        assert sum(spent) <= 1000 or spent == [large]
    last_large = max(at for at, tokens in machine.tokens if tokens == large)
    assert last_large < 1000.0 + 7 * 60


def test_tokens_that_turned_out_to_be_less_are_there_for_all(tmp_path) -> None:
    machine = Machine(tmp_path)
    one, other = (machine.ledger([], tokens_per_minute=1000) for _ in range(2))
    found = machine.locked(one, lambda: one.reserve(1000.0))
    machine.locked(one, lambda: one.leave(found.seq))
    one.land(found.seq)
    machine.locked(one, one.flush)
    assert isinstance(machine.locked(other, lambda: other.reserve(500.0)), Later)
    one.correct(found.seq, 100)
    machine.locked(one, one.flush)
    assert isinstance(machine.locked(other, lambda: other.reserve(500.0)), Start)


def test_pause_holds_for_everybody(tmp_path) -> None:
    machine = Machine(tmp_path)
    one, other = (machine.ledger([Rate(10, 1.0)]) for _ in range(2))
    one.pause(300.0)
    machine.locked(one, one.flush)
    late = machine.ledger([])
    for ledger in (one, other, late):
        found = machine.locked(ledger, lambda ledger=ledger: ledger.reserve(0.0))
        assert isinstance(found, Later)
        assert found.at >= 1299.9
        assert ledger.paused_until == 1300.0


def test_what_was_reserved_and_given_back_is_there_for_others(tmp_path) -> None:
    machine = Machine(tmp_path)
    one, other = (machine.ledger([Rate(1, 60.0)]) for _ in range(2))
    found = machine.locked(one, lambda: one.reserve(0.0))
    assert isinstance(machine.locked(other, lambda: other.reserve(0.0)), Later)
    one.free(found.seq)
    machine.locked(one, one.flush)
    assert isinstance(machine.locked(other, lambda: other.reserve(0.0)), Start)


def the_file(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.suffix == "")
    return path


GARBLED = {
    "empty": lambda data: b"",
    "text": lambda data: b"hello world\n" * 50,
    "zeros": lambda data: bytes(len(data)),
    "header": lambda data: b"\xff" * 10 + data[10:],
    "half a record at its end": lambda data: data[:-17],
    "a record in the middle": lambda data: data[:200] + bytes(40) + data[240:],
    "bytes pushed in": lambda data: data[:100] + b"x" + data[100:],
    "random": lambda data: random.Random(3).randbytes(len(data)),
    "half of it": lambda data: data[: len(data) // 80 * 40],
    "twice": lambda data: data + data,
}


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("how", GARBLED)
def test_garbled_file_breaks_no_limit_and_ends_no_run(tmp_path, how, running) -> None:
    """Both for who starts and for who ran before it was garbled; told once, and not at all where nothing is lost."""
    machine = Machine(tmp_path)
    rate = Rate(10, 1.0)
    before = machine.ledger([rate])
    machine.start(machine.sender(before, 10))
    machine.run()
    path = the_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(GARBLED[how](data))
    after = before if running else machine.ledger([rate])
    third = machine.ledger([rate])
    machine.start(machine.sender(after, 10))
    machine.start(machine.sender(third, 10))
    machine.run()
    if how != "half of it" or running:  # an old state that is whole in itself cannot be told from the present one
        assert worst_window(machine.times(), 1.0) <= 10
    assert len(machine.arrivals) == 30
    told = [sentence for sentence in machine.told if str(path) in sentence]
    assert len(told) <= 2
    if how in ("text", "random", "empty") and not running:
        assert told
    assert all(event is not None for event in load_events(the_file(tmp_path).read_bytes()))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("what", ["file", "all files", "folder"])
def test_files_removed_while_runs_go_on_break_no_limit(tmp_path, what, seed) -> None:
    machine = Machine(tmp_path / "limits", seed=seed)
    rate = Rate(10, 1.0)
    ledgers = [machine.ledger([rate]) for _ in range(3)]
    for ledger in ledgers:
        machine.start(machine.sender(ledger, 30))

    def remover() -> Iterator[float]:
        for _ in range(4):
            yield machine.random.uniform(0.9, 1.6)
            for path in list(machine.folder.iterdir()):
                if what != "file" or path.suffix == "":
                    path.unlink()
            if what == "folder":
                machine.folder.rmdir()

    machine.start(remover())
    machine.run()
    assert worst_window(machine.times(), 1.0) <= 10
    assert len(machine.arrivals) == 90


def test_times_of_before_a_restart_are_forgotten(tmp_path) -> None:
    """Where the machine's start has no name, a clock that went back tells."""
    machine = Machine(tmp_path)
    machine.now = 50_000.0
    before = machine.ledger([Rate(1, 3600.0)])
    machine.start(machine.sender(before, 1))
    machine.run()
    before.close()
    machine.now = 10.0
    after = machine.ledger([Rate(2, 86_400.0)])
    machine.start(machine.sender(after, 2))
    machine.run(50_000.0)
    assert len(machine.arrivals) == 3
    assert not machine.told


def test_files_tell_nothing_and_are_the_users_alone(tmp_path) -> None:
    machine = Machine(tmp_path / "state" / "limits")
    ledger = machine.ledger([Rate(5, 1.0)])
    machine.start(machine.sender(ledger, 5))
    machine.run()
    assert stat.S_IMODE(machine.folder.stat().st_mode) == 0o700
    for path in machine.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for secret in ("sk-secret", "example", "openai"):
            assert secret not in path.name
            assert secret.encode() not in path.read_bytes()
    ledger.close()
    assert not [path for path in machine.folder.iterdir() if path.name.count(".") and path.suffix != ".lock"]


def test_folded_file_counts_like_the_long_one(tmp_path) -> None:
    """A day of requests in a few thousand records; no window gets emptier, a short one stays as it is."""
    rnd = random.Random(5)
    times = sorted(rnd.uniform(0, 90_000) for _ in range(20_000))
    written = [Event(e.PAST, n, 7, at, 3.0, 1) for n, at in enumerate(times, 1)]
    folded = fold_events(written, 90_000.0)
    assert len(folded) < 6_000
    for span in (1.0, 30.0, 60.0, 3600.0, 86_400.0):
        long = sum(event.requests for event in written if event.at > 90_000 - span)
        short = sum(event.requests for event in folded if event.at > 90_000 - span)
        assert long <= short <= long * 1.02 + 1
        if span <= 60.0:
            assert short == long
    assert fold_events(folded, 90_000.0) == folded


def test_fold_keeps_what_is_on_its_way_and_pauses(tmp_path) -> None:
    machine = Machine(tmp_path)
    one, other = (machine.ledger([Rate(2, 1.0)], burst=2) for _ in range(2))
    found = machine.locked(one, lambda: one.reserve(0.0))
    machine.locked(one, lambda: one.leave(found.seq))
    second = machine.locked(one, lambda: one.reserve(0.0))
    one.pause(5.0)
    machine.locked(other, other.flush)
    machine.locked(other, other.fold)
    machine.locked(one, one.flush)
    assert machine.locked(one, lambda: one.leave(second.seq))
    late = machine.ledger([Rate(2, 1.0)], burst=2)
    refused = machine.locked(late, lambda: late.reserve(0.0))
    assert isinstance(refused, Later)
    assert refused.at > 1000.9
    machine.locked(one, one.fold)
    assert late.fold_due is False


@pytest.mark.parametrize("linked", [False, True])
def test_folding_breaks_no_limit_and_is_seen_by_all(tmp_path, linked) -> None:
    """Also where the old file lives on under another name, as NFS lets it while somebody has it open."""
    machine = Machine(tmp_path)
    ledgers = [machine.ledger([Rate(10, 1.0)]) for _ in range(3)]
    for ledger in ledgers:
        machine.start(machine.sender(ledger, 20))

    def folder() -> Iterator[float]:
        for number in range(6):
            yield 0.9
            if linked:
                os.link(the_file(tmp_path), tmp_path / f"old.{number}")
            machine.locked(ledgers[number % 3], ledgers[number % 3].fold)

    machine.start(folder())
    machine.run()
    assert worst_window(machine.times(), 1.0) <= 10
    assert len(machine.arrivals) == 60
    assert machine.times()[-1] - machine.times()[0] < 6.5
    assert not machine.told


def test_other_rates_count_what_was_sent_before(tmp_path) -> None:
    machine = Machine(tmp_path)
    ledger, other = (machine.ledger([Rate(5, 1.0)]) for _ in range(2))
    machine.start(machine.sender(other, 20))
    machine.run()
    machine.locked(ledger, lambda: ledger.set_rates([Rate(21, 60.0)], burst=21, tokens_per_minute=None))
    machine.start(machine.sender(ledger, 2))
    machine.run()
    assert machine.times()[-2] < 1010.0
    assert machine.times()[-1] >= 1060.0


def test_what_killed_processes_and_earlier_starts_left_is_tidied_up(tmp_path) -> None:
    machine = Machine(tmp_path)
    dead, alive = (machine.ledger([]) for _ in range(2))
    dead.disown()
    old = tmp_path / f"{SERVICE}-{'0' * 16}"
    recent = tmp_path / f"{SERVICE}-{'1' * 16}"
    for path in (old, Path(f"{old}.lock"), recent):
        path.write_bytes(b"")
    os.utime(old, (1e9, 1e9))
    newcomer = machine.ledger([])
    left = {path.name for path in tmp_path.iterdir()}
    assert recent.name in left
    assert not any(name.startswith(old.name) for name in left)
    assert {name.rpartition(".")[2] for name in left if "." in name} == {
        "lock", f"{alive.owner:016x}", f"{newcomer.owner:016x}",
    }  # fmt: skip


def test_slow_process_has_its_turn_beside_quick_ones(tmp_path) -> None:
    """Its timers are late each time; whoever waited longest still comes next."""
    machine = Machine(tmp_path)
    quick, slow = (machine.ledger([Rate(5, 1.0)]) for _ in range(2))

    def late(process: Iterator[float]) -> Iterator[float]:
        for wait_s in process:
            yield wait_s + 0.008

    machine.start(machine.sender(quick, 50))
    machine.start(late(machine.sender(slow, 50)))
    machine.run()
    first = machine.arrivals[:50]
    assert 20 <= sum(by is slow for _, by in first) <= 30


@pytest.mark.parametrize("count", [10, 18, 19, 20, 21, 25, 40, 50, 80, 100, 130, 200])
def test_nobody_has_two_turns_while_others_wait_at_any_rate(tmp_path, count) -> None:
    """The distance of requests lies on either side of how far ahead a turn is reserved."""
    machine = Machine(tmp_path)
    ledgers = [machine.ledger([Rate(count, 1.0)]) for _ in range(3)]
    for ledger in ledgers:
        machine.start(machine.sender(ledger, 40))
    machine.run()
    for start in range(6, 100, 12):
        turns = [by for _, by in machine.arrivals[start : start + 12]]
        assert all(3 <= turns.count(ledger) <= 5 for ledger in ledgers)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1),
                          st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 2**32 - 1)), max_size=20))  # fmt: skip
def test_records_come_back_as_they_were(fields) -> None:
    written = [Event(e.HEADER + kind, *rest) for kind, *rest in fields]
    assert list(load_events(dump_events(written))) == written


def test_digest_is_of_service_and_key_and_of_nothing_else() -> None:
    one = service_digest("openai", [("https://api.example.org/v1", "k")])
    assert one == service_digest("openai", [("https://API.example.org:443/v2/", "k")])
    others = [
        service_digest("openai", [("https://api.example.org/v1", "l")]),
        service_digest("openai", [("https://api.example.org/v1", None)]),
        service_digest("openai", [("http://api.example.org/v1", "k")]),
        service_digest("ai-engine", [("https://api.example.org/v1", "k")]),
        service_digest("openai", [("https://api.example.org/v1", "k"), ("https://b.example.org", "k")]),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_boot_has_a_name_on_linux() -> None:
    assert boot_id() == boot_id()
    if os.path.exists("/proc/sys/kernel/random/boot_id"):
        assert boot_id()
