"""What a run would do, found without sending anything."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from batchchat.admission import estimated_tokens
from batchchat.durations import Rate
from batchchat.records import InputFault, Prompt

__all__ = ["CheckReport", "check_input"]


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over the input found.

    Attributes:
        prompts: Prompts that could be sent.
        requests: Requests that they need if each succeeds at once; a turn is one.
        faults: Faulty lines.
        estimated_tokens: Tokens sent and, where ``max_tokens`` is set, received; four characters to the token.
        least_duration_s: Seconds that the rates and the token budget make the run last; 0.0 without any.
    """

    prompts: int
    requests: int
    faults: int
    estimated_tokens: int
    least_duration_s: float


def check_input(
    items: Iterable[Prompt | InputFault],
    tell_fault: Callable[[InputFault], None],
    *,
    params: Mapping[str, Any],
    rates: Sequence[Rate],
    tokens_per_minute: int | None,
    check: Callable[[Prompt], None] | None = None,
) -> CheckReport:
    """Reads the whole input; every fault is told as it is found.

    Args:
        check: Raises for a prompt that the provider's settings do not fit.
    """
    prompts = requests = faults = tokens = 0
    for item in items:
        if isinstance(item, InputFault):
            faults += 1
            tell_fault(item)
            continue
        if check is not None:
            check(item)
        prompts += 1
        requests += max(1, len(item.turns))
        turns = [{"role": "user", "content": turn} for turn in item.turns]
        tokens += estimated_tokens([*item.messages, *turns], item.system, {**params, **item.params})
    durations = [max(0, requests - 1) * rate.per_s / rate.count for rate in rates]
    if tokens_per_minute:
        durations.append(max(0.0, tokens / tokens_per_minute - 1) * 60)
    return CheckReport(
        prompts=prompts,
        requests=requests,
        faults=faults,
        estimated_tokens=tokens,
        least_duration_s=round(max(durations, default=0.0), 3),
    )
