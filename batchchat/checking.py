"""What a run would do and cost, found without sending anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from batchchat.durations import Rate
from batchchat.ids import IdTable
from batchchat.prices import PriceList
from batchchat.records import Attachment, InputFault, Prompt, PromptId, Usage
from batchchat.tokens import TokenCounter, most_output

__all__ = ["ASSUMED_OUTPUT_TOKENS", "CheckReport", "CheckSettings", "check_input"]

# How long an answer may be taken to be where nothing bounds it: the low and the high end of the cost.
ASSUMED_OUTPUT_TOKENS = (100, 1000)


class CheckSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of a job the figures depend on.

    Attributes:
        params: Sampling parameters of the job.
        routes: The ways of prompts that name no model; see ``Meter``.
        answered: Ids that have an answer already, which are counted and not sent.
    """

    params: Mapping[str, Any]
    rates: Sequence[Rate]
    tokens_per_minute: int | None
    prices: PriceList
    counter: TokenCounter
    routes: Sequence[tuple[str, ...]] = ((),)
    answered: IdTable | frozenset[PromptId] = frozenset()


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over the input found.

    Attributes:
        prompts: Prompts of the input.
        answered: How many of them have an answer in the results file; the figures below leave them out.
        requests: Requests that the others need if each succeeds at once; a turn is one.
        faults: Faulty lines.
        estimated_tokens: Tokens sent and, where ``max_tokens`` is set, received at most.
        input_tokens: Tokens sent.
        output_tokens: Tokens received, at least and at most: up to ``max_tokens``, else as assumed.
        unbounded_requests: Requests without ``max_tokens``, whose answers are taken for 100 to 1000 tokens.
        cost_usd: US dollars, at least and at most; None where a model has no price.
        unpriced: Models without a price, the empty name where none is named; each with its number of requests.
        price_sources: Where the prices come from.
        least_duration_s: Seconds that the rates and the token budget make the run last; 0.0 without any.
    """

    prompts: int
    answered: int
    requests: int
    faults: int
    estimated_tokens: int
    input_tokens: int
    output_tokens: tuple[int, int]
    unbounded_requests: int
    cost_usd: tuple[float, float] | None
    unpriced: dict[str, int]
    price_sources: tuple[str, ...]
    least_duration_s: float


def check_input(
    items: Iterable[Prompt | InputFault],
    tell_fault: Callable[[InputFault], None],
    settings: CheckSettings,
    *,
    check: Callable[[Prompt], None] | None = None,
) -> CheckReport:
    """Reads the whole input; every fault is told as it is found.

    Args:
        check: Raises for a prompt that the settings do not fit.
    """
    prompts = answered = faults = 0
    sums = _Sums(settings)
    for item in items:
        if isinstance(item, InputFault):
            faults += 1
            tell_fault(item)
            continue
        if check is not None:
            check(item)
        prompts += 1
        if item.id in settings.answered:
            answered += 1
        else:
            sums.add(item)
    return CheckReport(
        prompts=prompts,
        answered=answered,
        requests=sums.requests,
        faults=faults,
        estimated_tokens=sums.sent + sums.bounded,
        input_tokens=sums.sent,
        output_tokens=(sums.received[0], sums.received[1]),
        unbounded_requests=sums.unbounded,
        cost_usd=None if sums.unpriced else (_usd(sums.cost[0]), _usd(sums.cost[1])),
        unpriced=sums.unpriced,
        price_sources=settings.prices.sources,
        least_duration_s=sums.least_duration_s(),
    )


class _Sums:
    """Adds up what prompts are likely to cost."""

    def __init__(self, settings: CheckSettings) -> None:
        self._settings = settings
        self.requests = self.sent = self.bounded = self.unbounded = 0
        self.received = [0, 0]
        self.cost = [Decimal(0), Decimal(0)]
        self.unpriced: dict[str, int] = {}

    def add(self, prompt: Prompt) -> None:
        """Adds the requests of one prompt."""
        settings = self._settings
        params = {**settings.params, **prompt.params}
        model = prompt.model or next((name for names in settings.routes for name in names), None)
        settings.counter.prepare(model)
        most = most_output(params)
        low, high = (min(ASSUMED_OUTPUT_TOKENS[0], most), most) if most else ASSUMED_OUTPUT_TOKENS
        prices = settings.prices
        price = prices.price_for(prompt.model) if prompt.model else prices.price_of_any(settings.routes)
        for turn, sent in enumerate(self._inputs(prompt, params, model)):
            self.requests += 1
            self.sent += sent
            self.bounded += most or 0
            self.unbounded += most is None
            if price is None:
                self.unpriced[model or ""] = self.unpriced.get(model or "", 0) + 1
            for end, received in enumerate((low, high)):
                self.received[end] += received
                if price is not None:
                    usage = Usage(input_tokens=sent + turn * received, output_tokens=received)
                    self.cost[end] += price.cost(usage)

    def least_duration_s(self) -> float:
        """Seconds that the limits make the requests last."""
        settings = self._settings
        durations = [max(0, self.requests - 1) * rate.per_s / rate.count for rate in settings.rates]
        if settings.tokens_per_minute:
            durations.append(max(0.0, (self.sent + self.bounded) / settings.tokens_per_minute - 1) * 60)
        return round(max(durations, default=0.0), 3)

    def _inputs(self, prompt: Prompt, params: Mapping[str, Any], model: str | None) -> Iterator[int]:
        """Input tokens of each request, without the answers of the turns before it."""
        counter = self._settings.counter
        messages = list(prompt.messages)
        others = sum(_attached(attachment, counter) for attachment in prompt.attachments)
        if not prompt.turns:
            yield counter.estimate(messages, prompt.system, params, model).likely + others
            return
        for turn in prompt.turns:
            messages.append({"role": "user", "content": turn})
            yield counter.estimate(messages, prompt.system, params, model).likely + others


def _attached(attachment: Attachment, counter: TokenCounter) -> int:
    """Tokens of an image or a file, without reading it."""
    return -(-attachment.size // 4) if attachment.media_type == "text/plain" else counter.per_part


def _usd(amount: Decimal) -> float:
    return round(float(amount), 10)
