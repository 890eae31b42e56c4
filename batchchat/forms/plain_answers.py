"""Plain answers between the flat form and OpenAI's batch output, without the values that stand between the two.

This takes a third of the time of the long way, by ``outcome_from_object`` and back, which every other line goes; what
comes of a line is the same.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

__all__ = ["plain_from_batch", "plain_to_batch"]

_LINE = ("id", "response", "error", "finish_reason", "model", "usage", "attempts", "latency_s", "first_delta_s",
         "finished_at", "provider", "index", "fingerprint", "input")  # fmt: skip
_OURS = ("id", "index", "fingerprint", "attempts", "latency_s", "first_delta_s", "finished_at", "provider", "input")
_REASONS = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
_COUNTS = frozenset(
    ("input_tokens", "output_tokens", *more)
    for more in ((), ("cached_tokens",), ("reasoning_tokens",), ("cached_tokens", "reasoning_tokens"))
)
_SECONDS = frozenset((float, int, type(None)))
_TEXT = frozenset((str, type(None)))
_OBJECT = frozenset((dict, type(None)))

_TIME_CHARS = len("2026-11-25T10:03:11.120Z")
_SIXTY = {f"{second:02d}": second for second in range(60)}
# Minutes that were looked at, as most lines share theirs with others.
_minutes: dict[str, int] = {}
_MOST_MINUTES = 10_000


class _Answer(NamedTuple):
    text: str
    finish_reason: str | None
    model: str | None
    usage: dict[str, int] | None


def plain_to_batch(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The batch line of a flat answer that it holds as a whole; None for any other line."""
    if tuple(line) != _LINE:
        return None
    (
        line_id, text, error, reason, model, usage, attempts, latency_s, first_delta_s, finished_at, provider, index,
        fingerprint, given,
    ) = line.values()  # fmt: skip
    if type(line_id) is not str or not line_id or type(text) is not str or error is not None:
        return None
    if type(model) is not str or not model or type(reason) is not str or reason not in _REASONS:
        return None
    created = _second(finished_at)
    if created is None or not _are_ours(line):
        return None
    counts = None
    if usage is not None:
        counts = _hosted_counts(usage)
        if counts is None:
            return None
    digest = blake2b(f"{line_id!r} {finished_at}".encode("utf-8", "replace"), digest_size=12).hexdigest()
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": counts,
    }
    return {
        "id": f"batch_req_{digest}",
        "custom_id": line_id,
        "response": {"status_code": 200, "request_id": f"req_{digest}", "body": body},
        "error": None,
        "batchchat": {
            "id": line_id,
            "index": index,
            "fingerprint": fingerprint,
            "attempts": attempts,
            "latency_s": latency_s,
            "first_delta_s": first_delta_s,
            "finished_at": finished_at,
            "provider": provider,
            "input": given,
        },
    }


def plain_from_batch(obj: Mapping[str, Any]) -> dict[str, Any] | None:
    """The flat line of a plain answer in the batch form, ours or the hosted service's; None for any other line."""
    response, ours = obj.get("response"), obj.get("batchchat")
    if type(response) is not dict or obj.get("error") is not None or response.get("status_code") != 200:
        return None
    body: Any = response.get("body")
    answer = _answer(body) if type(body) is dict else None
    if answer is None:
        return None
    if "custom_id" not in obj:
        return None
    if ours is None:
        return _hosted_line(obj["custom_id"], answer, body.get("created"))
    if type(ours) is not dict or tuple(ours) != _OURS or not _are_ours(ours) or _second(ours["finished_at"]) is None:
        return None
    line_id = ours["id"]
    if type(line_id) is not str or not line_id:
        return None
    return {
        "id": line_id,
        "response": answer.text,
        "error": None,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "usage": answer.usage,
        "attempts": ours["attempts"],
        "latency_s": ours["latency_s"],
        "first_delta_s": ours["first_delta_s"],
        "finished_at": ours["finished_at"],
        "provider": ours["provider"],
        "index": ours["index"],
        "fingerprint": ours["fingerprint"],
        "input": ours["input"],
    }


def _hosted_line(line_id: Any, answer: _Answer, created: Any) -> dict[str, Any] | None:
    if type(line_id) is not str or not line_id or type(created) is not int or not 0 < created < 1 << 34:
        return None
    line: dict[str, Any] = dict.fromkeys(_LINE)
    line["id"], line["response"] = line_id, answer.text
    line["finish_reason"], line["model"], line["usage"] = answer.finish_reason, answer.model, answer.usage
    line["finished_at"] = f"{datetime.fromtimestamp(created, UTC).isoformat(timespec='milliseconds')[:-6]}Z"
    return line


def _are_ours(fields: Mapping[str, Any]) -> bool:
    """Whether what a run alone tells of an answer is of the types that it writes."""
    return (
        type(fields["attempts"]) is int
        and type(fields["index"]) is int
        and type(fields["latency_s"]) in _SECONDS
        and type(fields["first_delta_s"]) in _SECONDS
        and type(fields["provider"]) in _TEXT
        and type(fields["fingerprint"]) in _TEXT
        and type(fields["input"]) in _OBJECT
    )


def _second(finished_at: Any) -> int | None:
    """The second since 1970 of a time as a run writes it; None for any other, and for one before."""
    if type(finished_at) is not str or len(finished_at) != _TIME_CHARS or finished_at[23] != "Z":
        return None
    second, point, rest = _SIXTY.get(finished_at[17:19]), finished_at[19], finished_at[20:23]
    if second is None or point != "." or not (rest.isdecimal() and rest.isascii()):
        return None
    minute = _minutes.get(finished_at[:17])
    if minute is None:
        minute = _minute(finished_at[:17])
    return None if minute < 0 else minute + second


def _minute(begin: str) -> int:
    """The second since 1970 at which a minute (``2026-11-25T10:03:``) begins; -1 for what is none."""
    try:
        when = datetime.fromisoformat(f"{begin}00Z")
        second = int(when.timestamp()) if f"{when.isoformat()[:17]}" == begin else -1
    except ValueError:
        second = -1
    if len(_minutes) >= _MOST_MINUTES:
        _minutes.clear()
    _minutes[begin] = second
    return second


def _hosted_counts(usage: Any) -> dict[str, Any] | None:
    if (
        type(usage) is not dict
        or tuple(usage) not in _COUNTS
        or any(type(count) is not int for count in usage.values())
    ):
        return None
    sent, received = usage["input_tokens"], usage["output_tokens"]
    counts: dict[str, Any] = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
    if "cached_tokens" in usage:
        counts["prompt_tokens_details"] = {"cached_tokens": usage["cached_tokens"]}
    if "reasoning_tokens" in usage:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage["reasoning_tokens"]}
    return counts


def _answer(body: dict[str, Any]) -> _Answer | None:
    choices, model, counts = body.get("choices"), body.get("model"), body.get("usage")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict or type(model) not in _TEXT:
        return None
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if type(message) is not dict or message.get("tool_calls") or type(reason) not in _TEXT:
        return None
    text = message.get("content")
    usage = None if counts is None else _counts(counts)
    if type(text) is not str or (usage is None and counts is not None):
        return None
    return _Answer(text, reason, model or None, usage)


def _counts(counts: Any) -> dict[str, int] | None:
    if type(counts) is not dict:
        return None
    sent, received = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if type(sent) is not int or type(received) is not int:
        return None
    usage = {"input_tokens": sent, "output_tokens": received}
    for part, key in (("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens")):
        details = counts.get(part)
        if details is None:
            continue
        count = details.get(key) if type(details) is dict else False
        if type(count) is int:
            usage[key] = count
        elif count is not None:
            return None
    return usage
