"""What each attempt costs: estimated before it is sent, held in the budget, counted when it is over."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Self, TypeVar

import msgspec

from batchchat.budget import Budget, NoRoomError
from batchchat.errors import ConfigError, InvalidRequestError, ProviderError
from batchchat.prices import Priced, PriceList
from batchchat.providers.base import ChatRequest, end_if_cancelled, text_of
from batchchat.records import Completion, Prompt, Usage
from batchchat.tokens import Estimate, TokenCounter, answer_text, estimated_usage, most_output

__all__ = ["ASSUMED_OUTPUT_TOKENS", "Meter", "Trip"]

T = TypeVar("T")

# How long an answer without ``max_tokens`` may become, until some answers are there to tell.
ASSUMED_OUTPUT_TOKENS = 1000
_ENOUGH_ANSWERS = 10
# Attempts that end so have been worked on by the service, though no usage is told.
_COSTLY = frozenset(("timeout", "incomplete", "refused"))


class Trip:
    """One attempt between ``Meter.begin`` and its end.

    Attributes:
        model: The model that is asked for, None where neither request nor settings name one.
        likely: Tokens that it will probably cost, the answer included; 0 where nobody needs to know.
        sent: Whether the request went to the wire.
    """

    __slots__ = ("estimate", "held", "likely", "model", "price", "request", "sent")

    def __init__(self, request: ChatRequest, model: str | None) -> None:
        self.request, self.model = request, model
        self.estimate: Estimate | None = None
        self.price: Priced | None = None
        self.likely, self.sent = 0, False
        self.held: Decimal | None = None


class Meter:
    """Counts tokens and cost of a run's attempts.

    Args:
        budget: Where costs are counted and held.
        routes: The ways that a request without a model of its own may take, each with the names that its model has
            there, the most exact one first; an empty way for a service that chooses the model.
        ahead: Whether tokens have to be estimated before a request is sent, for a token budget.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        prices: PriceList | None = None,
        counter: TokenCounter | None = None,
        routes: Sequence[tuple[str, ...]] = ((),),
        ahead: bool = False,
    ) -> None:
        self.budget = Budget() if budget is None else budget
        self.prices = PriceList(library=False) if prices is None else prices
        self._counter = TokenCounter() if counter is None else counter
        self._routes, self._ahead = routes, ahead
        self._model = next((name for names in routes for name in names), None)
        self._answers = 0
        self._mean_output = 0.0
        self._longest = 0
        self._bound_holds = True  # whether no answer was longer than its ``max_tokens`` yet
        self._input_excess = 1.0  # by how much counted inputs went beyond what they should at most be
        self._paid: dict[tuple[str | None, str | None], Priced | None] = {}  # by the model asked for, and the one told
        # What is still to be priced, while prices are not loaded; a budget needs them before anything is sent.
        waits = self.budget.limit_usd is None and self.prices.may_ask_library
        self._unpriced: list[tuple[Trip, Usage, str | None]] | None = [] if waits else None
        self._loading: asyncio.Task[None] | None = None

    def checking(self, check: Callable[[Prompt], None] | None) -> Callable[[Prompt], None]:
        """A check of prompts before the first request, after ``check``.

        It raises ConfigError where there is a budget, and no price for the prompt's model.
        """

        def both(prompt: Prompt) -> None:
            if check is not None:
                check(prompt)
            if self.budget.limit_usd is not None and self._price(prompt.model) is None:
                raise ConfigError(self._no_price(prompt.model), key="stop.budget_usd")

        return both

    async def prepare(self) -> None:
        """Loads prices that a budget needs before the first request; without one they are loaded beside the run."""
        if self.budget.limit_usd is not None:
            await asyncio.to_thread(self._load_prices)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Waits until all that was spent has its price, also where the task is to end meanwhile; then it ends."""
        cancelled = False
        while self._loading is not None and not self._loading.done():
            try:
                await asyncio.wait([self._loading])
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        if self._loading is not None:
            self._loading.result()

    async def begin(self, request: ChatRequest, *, ahead: bool = False, patient: bool = True) -> Trip:
        """Waits until the budget has room for one more attempt.

        Args:
            ahead: Whether this one has to be estimated in any case.
            patient: Whether it waits.

        Raises:
            NoRoomError: It does not wait, and does not fit now.
            ProviderError: There is a budget, and no price for the model.
        """
        trip = Trip(request, request.model or self._model)
        limited = self.budget.limit_usd is not None
        if not (ahead or self._ahead or limited):
            return trip
        estimate = await self._off_loop(trip, lambda: self._estimated(trip))
        end_if_cancelled()
        bound = most_output(request.params)
        trip.likely = estimate.likely + (round(self._mean_output) if bound is None else bound)
        if limited:
            await self._hold(trip, estimate, bound, patient=patient)
        return trip

    async def settle(self, trip: Trip, completion: Completion) -> Completion:
        """Counts an answer; it comes back with its usage, estimated as far as the service told none.

        A task that is to end meanwhile is ended by its worker afterwards, once the answer is safe.
        """
        told = completion.usage
        if told is None or told.input_tokens is None or told.output_tokens is None:
            if trip.model is None:  # then there is no encoding that may have to be loaded
                usage = self._filled(trip, completion)
            else:
                usage = await self._off_loop(trip, lambda: self._filled(trip, completion))
            completion = msgspec.structs.replace(completion, usage=usage)
        else:
            usage = told
            self._learn(trip, usage)
        self._note_output(trip, usage)
        self._spend(trip, usage, completion.model)
        return completion

    def fail(self, trip: Trip, error: ProviderError) -> None:
        """Counts a failed attempt, if it cost anything."""
        costly = error.type in _COSTLY and trip.sent and (error.status is None or error.status < 400)
        if error.partial or costly:
            sent = self._estimated(trip).likely
            received = self._counter.count(error.partial or "")
            self._spend(trip, Usage(input_tokens=sent, output_tokens=received, estimated=True), None)
        else:
            self._release(trip)

    def drop(self, trip: Trip) -> None:
        """Counts an attempt that was given up: its input, if it was sent."""
        if trip.sent:
            sent = self._estimated(trip).likely
            self._spend(trip, Usage(input_tokens=sent, output_tokens=0, estimated=True), None)
        else:
            self._release(trip)

    async def _hold(self, trip: Trip, estimate: Estimate, bound: int | None, *, patient: bool) -> None:
        trip.price = self._price(trip.request.model)
        if trip.price is None:
            raise InvalidRequestError(self._no_price(trip.request.model))
        sent = round(estimate.most * self._input_excess)
        most, alone = (
            trip.price.cost(Usage(input_tokens=sent, output_tokens=received))
            for received in (self._most_output(bound), self._known_output(bound))
        )
        if not patient and not self.budget.has_room(most):
            raise NoRoomError
        trip.held = await self.budget.hold(most, alone=alone)

    def _price(self, model: str | None) -> Priced | None:
        """The price of a request before it is sent; None where any way that it may take has none."""
        if model is not None:
            return self.prices.price_for(model)
        return self.prices.price_of_any(self._routes)

    def _no_price(self, model: str | None) -> str:
        without = [names for names in self._routes if self.prices.first_price(names or (None,)) is None]
        name = model or next((name for names in without for name in names), None)
        if name is None:
            return (
                "the budget cannot be held: neither prompt nor settings name a model that could have a price; "
                "give prices with the pattern '*' in the job file"
            )
        return (
            f"the budget cannot be held: no price for model {name}; give it under prices in the job file, or install "
            "batchchat[prices]"
        )

    def _known_output(self, bound: int | None) -> int:
        """The longest answer that is to be expected by what is known: nothing, before there is one."""
        seen = self._longest + self._longest // 4
        return seen if bound is None else bound if self._bound_holds else max(bound, seen)

    def _most_output(self, bound: int | None) -> int:
        """The same, with an assumption as long as there are few answers."""
        known = self._known_output(bound)
        return max(known, ASSUMED_OUTPUT_TOKENS) if bound is None and self._answers < _ENOUGH_ANSWERS else known

    def _estimated(self, trip: Trip) -> Estimate:
        if trip.estimate is None:
            request = trip.request
            trip.estimate = self._counter.estimate(
                request.messages, request.system, request.params, trip.model, request.answer_schema
            )
        return trip.estimate

    def _filled(self, trip: Trip, completion: Completion) -> Usage:
        return estimated_usage(
            completion.usage,
            lambda: self._estimated(trip).likely,
            lambda: self._counter.count(answer_text(completion), trip.model),
        )

    def _learn(self, trip: Trip, usage: Usage) -> None:
        """An input that was counted higher than it should be says how much more the next ones may be."""
        if trip.estimate is not None and usage.input_tokens and not usage.estimated:
            self._input_excess = max(self._input_excess, usage.input_tokens / max(1, trip.estimate.most))

    def _note_output(self, trip: Trip, usage: Usage) -> None:
        made = usage.output_tokens or 0
        self._answers += 1
        self._mean_output += (made - self._mean_output) / min(self._answers, 10)
        self._longest = max(self._longest, made)
        if self._bound_holds and trip.request.params and made > (most_output(trip.request.params) or made):
            self._bound_holds = False

    def _spend(self, trip: Trip, usage: Usage, told_model: str | None) -> None:
        named = trip.model or told_model or self._model  # no library prices what has no name
        if self._unpriced is None or not named:
            self._pay(trip, usage, told_model)
        else:
            self._unpriced.append((trip, usage, told_model))
            if self._loading is None:
                self._loading = asyncio.ensure_future(self._price_later())
        self._release(trip)

    async def _price_later(self) -> None:
        """Prices what was spent so far, once prices are loaded; that takes a good part of a second."""
        try:
            await asyncio.to_thread(self._load_prices)
        finally:
            unpriced, self._unpriced = self._unpriced or [], None
        for trip, usage, told_model in unpriced:
            self._pay(trip, usage, told_model)

    def _load_prices(self) -> None:
        self.prices.load()
        self._price(None)

    def _pay(self, trip: Trip, usage: Usage, told_model: str | None) -> None:
        self.budget.spend(usage, self._price_paid(trip, told_model), trip.model or told_model)

    def _price_paid(self, trip: Trip, told_model: str | None) -> Priced | None:
        if trip.price is not None:
            return self._find_price_paid(trip, told_model)
        models = (trip.request.model, told_model)
        if models not in self._paid:
            self._paid[models] = self._find_price_paid(trip, told_model)
        return self._paid[models]

    def _find_price_paid(self, trip: Trip, told_model: str | None) -> Priced | None:
        several = trip.request.model is None and len(self._routes) > 1
        if trip.price is not None and not several:
            return trip.price
        asked, told = trip.request.model, told_model
        if several or trip.model is None:  # the answer says which model it was
            return (self.prices.price_for(told) if told else None) or self._price(None)
        return self._price(asked) or (self.prices.price_for(told) if told else None)

    def _release(self, trip: Trip) -> None:
        if trip.held is not None:
            held, trip.held = trip.held, None
            self.budget.release(held)

    async def _off_loop(self, trip: Trip, work: Callable[[], T]) -> T:
        """Does what counts tokens, in a thread where that takes long, to its end even if the task is to end."""
        request = trip.request
        size = sum(len(text_of(message.get("content"))) for message in request.messages)
        if self._counter.is_quick(size, trip.model):
            return work()

        def prepared() -> T:
            self._counter.prepare(trip.model)
            return work()

        done = asyncio.ensure_future(asyncio.to_thread(prepared))
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue
        return done.result()
