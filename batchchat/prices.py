"""What tokens cost: the job's own prices, else those of the library ``genai-prices``; exact to the last digit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from batchchat.records import Usage

__all__ = ["FREE", "OWN_PRICES", "Dearest", "Price", "PriceConfig", "PriceList", "Priced", "money"]

OWN_PRICES = "the job"
FREE = "nothing is paid for this provider"
_MILLION = 1_000_000
_DATED = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8})$", re.ASCII)
_MOST_TOKENS = 10**12  # beyond, a count is nonsense and its cost unknown

Usd = Annotated[float, Meta(ge=0, le=1_000_000)]


class PriceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a model in US dollars for a million tokens.

    Attributes:
        input: Tokens sent.
        output: Tokens received, those of reasoning among them.
        cached_input: Tokens sent that the service had in its cache; as ``input`` without it.
        reasoning: Tokens of reasoning, where they cost something else than ``output``.
    """

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    reasoning: Usd | None = None


class Priced(Protocol):
    """Something that knows what tokens cost."""

    def cost(self, usage: Usage) -> Decimal:
        """US dollars for the tokens of one request; a count that is not known is taken for 0."""
        ...


class Dearest:
    """What is to be paid in the worst case, where it is not known yet which of several models will answer."""

    def __init__(self, prices: Sequence[Priced]) -> None:
        self._prices = prices

    def cost(self, usage: Usage) -> Decimal:
        """See ``Priced``."""
        return max(price.cost(usage) for price in self._prices)


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices that do not depend on how many tokens there are; US dollars for one token each."""

    input: Decimal
    output: Decimal
    cached_input: Decimal
    reasoning: Decimal

    @classmethod
    def per_million(cls, config: PriceConfig) -> "Price":
        """The price that a job states, digit by digit as it is written."""
        sent, received = _exact(config.input), _exact(config.output)
        return cls(
            input=sent,
            output=received,
            cached_input=sent if config.cached_input is None else _exact(config.cached_input),
            reasoning=received if config.reasoning is None else _exact(config.reasoning),
        )

    def cost(self, usage: Usage) -> Decimal:
        """See ``Priced``; cached tokens are part of the input, reasoning is part of the output."""
        sent, cached, received, reasoning = _parts(usage)
        return (
            self.input * (sent - cached)
            + self.cached_input * cached
            + self.output * (received - reasoning)
            + self.reasoning * reasoning
        )


class PriceList:
    """Prices by model; the first of these that knows one counts.

    1. The job's entry with the model's very name.
    2. The job's entry with that name less the date at its end (``gpt-4o-2024-08-06`` is ``gpt-4o``).
    3. The job's patterns (``gpt-4*``, ``*``), the longest first.
    4. The library, if it is installed.

    Args:
        prices: Model or pattern to its price.
        base_url: Address of the service, by which the library finds whose prices count.
        library: Whether the library is asked; it is loaded at the first model that the job has no price for.
        free: Whether what the job has no price for costs nothing, as on this machine.
    """

    def __init__(
        self,
        prices: Mapping[str, PriceConfig] | None = None,
        *,
        base_url: str | None = None,
        library: bool = True,
        free: bool = False,
    ) -> None:
        self._own = {name: Price.per_million(config) for name, config in (prices or {}).items()}
        self._patterns = sorted((name for name in self._own if _is_pattern(name)), key=lambda name: (-len(name), name))
        self._base_url, self._ask_library, self._free = base_url, library, free
        self._known: dict[str | None, Priced | None] = {}
        self._used: set[str] = set()

    @property
    def may_ask_library(self) -> bool:
        """Whether there may be models that only the library knows a price for."""
        return self._ask_library and not self._free and "*" not in self._own

    def load(self) -> None:
        """Loads the library, unless the job's own prices fit every model; takes a good part of a second."""
        if self.may_ask_library:
            _library_price("", None)

    def price_for(self, model: str | None) -> Priced | None:
        """The price of a model; None where none is known. The first call for a model may take a good part of a second.

        Args:
            model: Name as it is asked for or told; None where nobody names one, which only the pattern ``*`` fits.
        """
        if model not in self._known:
            self._known[model] = self._find(model)
        return self._known[model]

    def first_price(self, models: Iterable[str | None]) -> Priced | None:
        """The price of the first of several names that has one."""
        for model in models:
            if (price := self.price_for(model)) is not None:
                return price
        return None

    def price_of_any(self, ways: Sequence[tuple[str, ...]]) -> Priced | None:
        """The price of a request that may take any of these ways, the dearest; None where one of them has none.

        Args:
            ways: The names of the model on each, the most exact one first; empty where the service chooses it.
        """
        found = [self.first_price(names or (None,)) for names in ways]
        prices = [price for price in found if price is not None]
        if not prices or len(prices) < len(found):
            return None
        return prices[0] if len(prices) == 1 else Dearest(prices)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the prices that were found come from: ``the job``, ``genai-prices 0.2.3``."""
        return tuple(sorted(self._used))

    def _find(self, model: str | None) -> Priced | None:
        if self._own and (own := self._find_own(model or "")) is not None:
            self._used.add(OWN_PRICES)
            return own
        if self._free:
            self._used.add(FREE)
            return Price.per_million(PriceConfig(input=0.0, output=0.0))
        if not model or not self._ask_library:
            return None
        found = _library_price(model, self._base_url)
        if found is not None:
            self._used.add(_library_name())
        return found

    def _find_own(self, model: str) -> Price | None:
        undated = _DATED.sub("", model)
        for name in (model, undated):
            if name in self._own:
                return self._own[name]
        for pattern in self._patterns:
            if fnmatchcase(model, pattern) or fnmatchcase(undated, pattern):
                return self._own[pattern]
        return None


class _LibraryPrice:
    """A price that depends on the number of tokens: the library is asked for each request."""

    def __init__(self, calculate: "partial[Any]") -> None:
        self._calculate = calculate

    def cost(self, usage: Usage) -> Decimal:
        """See ``Priced``."""
        return _library_cost(self._calculate, *_parts(usage)[:3])


def money(usd: Decimal | float) -> str:
    """An amount as people write it: ``$12.30``, ``$0.00418``, ``$0.00``."""
    amount = Decimal(usd)
    if amount == 0 or amount >= Decimal("0.995"):
        return f"${amount:,.2f}"
    digits = min(12, max(2, 2 - amount.adjusted()))
    return f"${amount:.{digits}f}"


def _parts(usage: Usage) -> tuple[int, int, int, int]:
    """Input, cached, output and reasoning tokens, made to fit each other."""
    sent, received = _count(usage.input_tokens), _count(usage.output_tokens)
    cached, reasoning = min(_count(usage.cached_tokens), sent), _count(usage.reasoning_tokens)
    if reasoning > received:  # a service that does not count reasoning as output
        received += reasoning
    return sent, cached, received, reasoning


def _count(tokens: int | None) -> int:
    return min(max(tokens or 0, 0), _MOST_TOKENS)


def _exact(usd_per_million: float) -> Decimal:
    return Decimal(repr(usd_per_million)) / _MILLION


def _is_pattern(name: str) -> bool:
    return any(char in name for char in "*?[")


def _library_name() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"genai-prices {version('genai-prices')}"
    except PackageNotFoundError:
        return "genai-prices"


def _library_price(model: str, base_url: str | None) -> Priced | None:
    """What the library knows of a model, at the service's address or else by its name alone; it asks no network."""
    try:
        from genai_prices import calc_price
    except (ImportError, OSError):  # not installed, or no file can be opened any more
        return None
    for where in ({"provider_api_url": base_url}, {}) if base_url else ({},):
        calculate = partial(calc_price, model_ref=model, **where)
        try:
            return _simplified(calculate)
        except (LookupError, ValueError):
            continue
    return None


def _simplified(calculate: "partial[Any]") -> Priced:
    """A plain price where many tokens cost what one costs, times their number; so a million lines stay quick.

    Raises:
        LookupError: The library does not know the model.
    """
    small, large = _unit_prices(calculate, _MILLION // 1000), _unit_prices(calculate, 100 * _MILLION)
    if small != large:
        return _LibraryPrice(calculate)
    return Price(input=small[0], cached_input=small[1], output=small[2], reasoning=small[2])


def _unit_prices(calculate: "partial[Any]", tokens: int) -> tuple[Decimal, Decimal, Decimal]:
    sent = _library_cost(calculate, tokens, 0, 0)
    cached = _library_cost(calculate, tokens, tokens, 0)
    received = _library_cost(calculate, tokens, 0, tokens) - sent
    return sent / tokens, cached / tokens, received / tokens


def _library_cost(calculate: "partial[Any]", sent: int, cached: int, received: int) -> Decimal:
    from genai_prices import Usage as LibraryUsage

    usage = LibraryUsage(input_tokens=sent, cache_read_tokens=cached, output_tokens=received)
    return Decimal(calculate(usage).total_price)
