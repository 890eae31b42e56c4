"""A chat service and a client in front of it, in a model's own time: runs of minutes take milliseconds, and repeat.

The service works at so many requests at a time and does one of five things with more. The client keeps as many on the
wire as its control allows, and asks again for what was refused, after the same waits as a run.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Protocol

from batchchat.auto_concurrency.ceiling import Sent

Kind = Literal["refuse", "queue", "share", "set", "thrash"]


class Control(Protocol):
    limit: int

    def begin(self, now: float) -> Sent: ...

    def answered(self, sent: Sent, now: float) -> None: ...

    def refused(self, sent: Sent, now: float, *, pause_s: float | None = None) -> None: ...


class Fixed:
    """As many as it was told, whatever comes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def begin(self, now: float) -> Sent:
        return Sent(0, now, 0, False)

    def answered(self, sent: Sent, now: float) -> None:
        """Learns nothing."""

    def refused(self, sent: Sent, now: float, *, pause_s: float | None = None) -> None:
        """Learns nothing."""


class Service(NamedTuple):
    """What stands at the other end.

    ``kind``: with more than ``capacity(now)`` at a time it refuses (429), lets them ``queue``, ``share`` its power among
    them, ``set`` the time of each by their number when it comes, or loses power with each (``thrash``: so many times
    the capacity bring ``1 / times ** loss`` of its answers).
    """

    kind: Kind
    capacity: Callable[[float], float]
    median_s: float = 0.5
    sigma: float = 0.6  # of the logarithm: answers of very different lengths
    refusal_s: float = 0.01
    lag_s: float = 0.0  # for so long an answered request still counts as one at work
    retry_after_s: float | None = None
    refused_share: float = 0.0  # of all, whatever their number
    per_s: int | None = None  # more requests in any second are refused
    slower: Callable[[float], float] = lambda _: 1.0
    loss: float = 0.5

    @staticmethod
    def steps(*steps: tuple[float, float]) -> Callable[[float], float]:
        """Capacity by time: ``(until, capacity)``, the last one for ever."""
        return lambda now: next((capacity for until, capacity in steps if now < until), steps[-1][1])


class Ran(NamedTuple):
    """What came of a run."""

    seconds: float
    answered: int
    sent: int
    refused: int
    limits: list[tuple[float, int]]

    @property
    def refused_share(self) -> float:
        return self.refused / self.sent


def run(control: Control, service: Service, prompts: int, seed: int = 0, *, most_s: float = math.inf) -> Ran:
    """Runs to the last answer, or for ``most_s``."""
    model = _Model(control, service, prompts, seed)
    model.send()
    while model.events and model.answered < prompts and model.now < most_s:
        model.step()
    return Ran(model.now, model.answered, model.sent, model.refused, model.limits)


def best_fixed(service: Service, prompts: int, seed: int, numbers: Iterable[int]) -> float:
    """Seconds that the best of these fixed numbers takes, chosen with hindsight."""
    best = math.inf
    for level in numbers:
        best = min(best, run(Fixed(level), service, prompts, seed, most_s=best + 1).seconds)
    return best


class _Model:
    def __init__(self, control: Control, service: Service, prompts: int, seed: int) -> None:
        self.control, self.service, self.prompts = control, service, prompts
        self.random = random.Random(seed)
        self.now = self.paused_until = 0.0
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = self.begun = self.sent = self.refused = self.answered = self.on_wire = self.at_work = 0
        self.again: list[int] = []  # prompts to be asked again, by their tries
        self.queue: deque[tuple[Sent, int]] = deque()
        self.window: deque[float] = deque()
        # Requests that share: each has so much work to be done, all get on at the same speed.
        self.shared: list[tuple[float, int, tuple[Sent, int]]] = []
        self.done_each, self.turn = 0.0, 0
        self.limits: list[tuple[float, int]] = []

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        self.order += 1
        heapq.heappush(self.events, (when, self.order, what, arguments))

    def step(self) -> None:
        when, _, what, arguments = heapq.heappop(self.events)
        self.done_each += (when - self.now) * self.speed()
        self.now = when
        what(*arguments)
        self.send()
        if not self.limits or self.limits[-1][1] != self.control.limit:
            self.limits.append((self.now, self.control.limit))

    def speed(self) -> float:
        many, capacity = len(self.shared), self.service.capacity(self.now)
        if many <= capacity:
            return 1.0
        return (capacity / many) ** (1.0 + self.service.loss * (self.service.kind == "thrash"))

    def work_s(self) -> float:
        service = self.service
        return service.median_s * math.exp(self.random.gauss(0, service.sigma)) * service.slower(self.now)

    def send(self) -> None:
        while self.on_wire < self.control.limit and (self.again or self.may_begin()):
            if self.now < self.paused_until:
                self.at(self.paused_until, lambda: None)
                return
            tries = self.again.pop() if self.again else 0
            self.begun += tries == 0
            self.on_wire += 1
            self.sent += 1
            self.arrive((self.control.begin(self.now), tries))

    def may_begin(self) -> bool:
        """As many prompts are under way as in a run, those that wait for their next attempt among them."""
        limit = self.control.limit
        return self.begun < min(self.prompts, self.answered + max(2 * limit, limit + 8))

    def arrive(self, request: tuple[Sent, int]) -> None:
        service = self.service
        if self.is_refused():
            self.at(self.now + service.refusal_s, self.refuse, request)
        elif service.kind == "queue" and self.at_work >= service.capacity(self.now):
            self.queue.append(request)
        elif service.kind in ("queue", "refuse", "set"):
            self.at_work += 1
            more = self.at_work / service.capacity(self.now) if service.kind == "set" else 1.0
            self.at(self.now + self.work_s() * max(1.0, more), self.answer, request)
        else:
            self.order += 1
            heapq.heappush(self.shared, (self.done_each + self.work_s(), self.order, request))
            self.plan_shared()

    def is_refused(self) -> bool:
        service = self.service
        if service.refused_share and self.random.random() < service.refused_share:
            return True
        if service.per_s is not None:
            while self.window and self.now - self.window[0] >= 1.0:
                self.window.popleft()
            if len(self.window) >= service.per_s:
                return True
            self.window.append(self.now)
        return service.kind == "refuse" and self.at_work >= service.capacity(self.now)

    def plan_shared(self) -> None:
        self.turn += 1
        if self.shared:
            left = max(0.0, self.shared[0][0] - self.done_each)
            self.at(self.now + left / self.speed(), self.answer_shared, self.turn)

    def answer_shared(self, turn: int) -> None:
        if turn == self.turn:
            self.answer(heapq.heappop(self.shared)[2])
            self.plan_shared()

    def answer(self, request: tuple[Sent, int]) -> None:
        self.on_wire -= 1
        self.answered += 1
        self.control.answered(request[0], self.now)
        if self.service.lag_s:
            self.at(self.now + self.service.lag_s, self.leave)
        elif self.service.kind in ("queue", "refuse", "set"):
            self.leave()

    def leave(self) -> None:
        self.at_work -= 1
        while self.queue and self.at_work < self.service.capacity(self.now):
            self.at_work += 1
            self.at(self.now + self.work_s(), self.answer, self.queue.popleft())

    def refuse(self, request: tuple[Sent, int]) -> None:
        sent, tries = request
        service = self.service
        self.on_wire -= 1
        self.refused += 1
        self.control.refused(sent, self.now, pause_s=service.retry_after_s)
        if service.retry_after_s:
            self.paused_until = max(self.paused_until, self.now + service.retry_after_s)
        wait_s = min(60.0, 2.0**tries) + self.random.random()
        self.at(self.now + wait_s, self.again.append, tries + 1)
