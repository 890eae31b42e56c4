"""What each attempt costs: estimated before it is sent, held in the budget, counted when it is over."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import msgspec

from batchchat.budget import Budget
from batchchat.errors import ConfigError, InvalidRequestError, ProviderError
from batchchat.prices import Priced, PriceList
from batchchat.providers.base import ChatRequest, end_if_cancelled
from batchchat.records import Completion, Prompt, Usage
from batchchat.tokens import Estimate, TokenCounter, answer_text, estimated_usage, most_output

__all__ = ["ASSUMED_OUTPUT_TOKENS", "Meter", "Trip"]

T = TypeVar("T")

# How long an answer without ``max_tokens`` may become, until some answers are there to tell.
ASSUMED_OUTPUT_TOKENS = 1000
_ENOUGH_ANSWERS = 10
# Attempts that end so have been worked on by the service, though no usage is told.
_COSTLY = frozenset(("timeout", "incomplete", "refused", "invalid_response"))


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
        model: The model of requests that name none.
        ahead: Whether tokens have to be estimated before a request is sent, for a token budget.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        prices: PriceList | None = None,
        counter: TokenCounter | None = None,
        model: str | None = None,
        ahead: bool = False,
    ) -> None:
        self.budget = Budget() if budget is None else budget
        self.prices = PriceList(library=False) if prices is None else prices
        self._counter = TokenCounter() if counter is None else counter
        self._model, self._ahead = model, ahead
        self._answers = 0
        self._mean_output = 0.0
        self._longest = 0
        self._bound_holds = True  # whether no answer was longer than its ``max_tokens`` yet
        self._input_excess = 1.0  # by how much counted inputs went beyond what they should at most be

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

    async def begin(self, request: ChatRequest, *, ahead: bool = False) -> Trip:
        """Waits until the budget has room for one more attempt.

        Args:
            ahead: Whether this one has to be estimated in any case.

        Raises:
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
            await self._hold(trip, estimate, bound)
        return trip

    async def settle(self, trip: Trip, completion: Completion) -> Completion:
        """Counts an answer; it comes back with its usage, estimated as far as the service told none.

        A task that is to end meanwhile is ended by its worker afterwards, once the answer is safe.
        """
        told = completion.usage
        if told is None or told.input_tokens is None or told.output_tokens is None:
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

    async def _hold(self, trip: Trip, estimate: Estimate, bound: int | None) -> None:
        trip.price = self._price(trip.model)
        if trip.price is None:
            raise InvalidRequestError(self._no_price(trip.model))
        sent = round(estimate.most * self._input_excess)
        usd = trip.price.cost(Usage(input_tokens=sent, output_tokens=self._most_output(bound)))
        await self.budget.hold(usd)
        trip.held = usd

    def _price(self, model: str | None) -> Priced | None:
        return self.prices.price_for(model or self._model)

    def _no_price(self, model: str | None) -> str:
        name = model or self._model
        if name is None:
            return (
                "the budget cannot be held: neither prompt nor settings name a model that could have a price; "
                "give prices with the pattern '*' in the job file"
            )
        return (
            f"the budget cannot be held: no price for model {name}; give it under prices in the job file, or install "
            "batchchat[prices]"
        )

    def _most_output(self, bound: int | None) -> int:
        seen = self._longest + self._longest // 4
        if bound is not None and self._bound_holds:
            return bound
        if self._answers < _ENOUGH_ANSWERS:
            seen = max(seen, ASSUMED_OUTPUT_TOKENS)
        return max(seen, bound or 0)

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
        bound = most_output(trip.request.params)
        if bound is not None and made > bound:
            self._bound_holds = False

    def _spend(self, trip: Trip, usage: Usage, told_model: str | None) -> None:
        price = trip.price or self.prices.first_price((trip.model, told_model))
        self.budget.spend(usage, price, trip.model or told_model)
        self._release(trip)

    def _release(self, trip: Trip) -> None:
        if trip.held is not None:
            held, trip.held = trip.held, None
            self.budget.release(held)

    async def _off_loop(self, trip: Trip, work: Callable[[], T]) -> T:
        """Does what counts tokens, in a thread where that takes long, to its end even if the task is to end."""
        request = trip.request
        size = sum(len(str(message.get("content") or "")) for message in request.messages)
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
