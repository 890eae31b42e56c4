"""What an OpenAI-compatible service's error objects mean, whether they come with a status or inside a stream."""

from collections.abc import Mapping
from typing import Any

from batchchat.errors import ErrorType, IncompleteError, ProtocolError, ProviderError, provider_error
from batchchat.providers.status import status_error
from batchchat.providers.text import looks_like_html, plain_text
from batchchat.retry import requested_wait_s

__all__ = ["object_error", "page_error", "refused_error", "refuses_schema"]

# Looked for in code and type first, then in the message; the first hit decides.
_CODES: tuple[tuple[tuple[str, ...], ErrorType, bool | None], ...] = (
    (("insufficient_quota", "billing_hard_limit", "billing_not_active", "insufficient_balance"), "quota", None),
    (("content_filter", "content_policy", "responsibleaipolicy"), "refused", None),
    (("invalid_prompt", "invalid_image", "image_", "empty_image"), "invalid_request", None),
    (("context_length_exceeded", "string_above_max_length"), "invalid_request", None),
    (("model_not_found", "deploymentnotfound", "model_not_available"), "invalid_request", True),
    (("invalid_api_key", "authentication_error", "permission_denied", "permission_error"), "auth", None),
    (("no_db_connection",), "auth", None),  # LiteLLM without a database, for every key but its master key
    (("rate_limit", "too_many_requests", "tokens_exceeded"), "rate_limit", None),
    (("overloaded", "server_error", "service_unavailable", "internal_error", "api_error", "timeout"), "server", None),
    (("invalid_request", "invalid_value", "unsupported", "bad_request"), "invalid_request", None),
)
_PROSE: tuple[tuple[tuple[str, ...], ErrorType, bool | None], ...] = (
    (("exceeded your current quota", "insufficient balance", "out of credits"), "quota", None),
    (("maximum context length", "context length", "context window"), "invalid_request", None),
    (("rate limit", "too many requests"), "rate_limit", None),
    (("overloaded", "try again", "temporarily"), "server", None),
)
_SCHEMA_WORDS = ("response_format", "response format", "json_schema", "json schema", "text.format", "structured output")
_SCHEMA_SEARCH = 4096
# How an object or a stream of events begins, so that a piece of it is an answer that was cut.
_ANSWER_STARTS = (b"{", b":", b"data:", b"event:", b"id:", b"retry:")
# Told with codes that say no more than that a request is wrong (LiteLLM).
_UNKNOWN_MODEL = ("invalid model name",)


def object_error(status: int, body: bytes, parsed: Any, headers: Mapping[str, str]) -> ProviderError:
    """The error of an answer that reports one: by its status, refined by the error object's own words.

    Args:
        status: HTTP status; 200 for an error object inside a stream or in a whole answer.
        body: For the preview where it is no JSON.
        parsed: The body, or the event, as an object; None where it is no JSON.
    """
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if error is None:
        html = looks_like_html(body)
        what = "an HTML page" if html else "no JSON"
        return status_error(status, f"HTTP {status} with {what}: {plain_text(body)}", headers, html=html)
    message = plain_text(_message(error), 500) or f"HTTP {status}"
    inner = _status_in(error)
    found = _by_words(error, message)
    effective = inner or status
    if found is None or (effective >= 400 and not _fits(found[0], effective)):
        if effective == 200:
            return provider_error("server", message, status=status)
        told = status_error(effective, message, headers)
        told.status = status
        return told
    kind, stops = found
    if effective in (404, 405, 410) and kind == "invalid_request":  # a route or a model that is not there
        stops = True
    return provider_error(kind, message, status=status, stops_run=stops, retry_after_s=requested_wait_s(headers))


def refuses_schema(body: bytes, error: ProviderError) -> bool:
    """Whether a refused request was refused for the schema of its answer, so that it is worth sending without."""
    text = f"{error.message} {body[:_SCHEMA_SEARCH].decode('utf-8', 'replace')}".lower()
    too_long = any(word in text for word in ("context length", "context_length", "context window"))
    return error.type == "invalid_request" and not too_long and any(word in text for word in _SCHEMA_WORDS)


def refused_error(text: str) -> ProviderError:
    """The model declined, or a filter stopped the answer; ``text`` is what it said."""
    return provider_error("refused", plain_text(text, 2000), status=200)


def page_error(body: bytes) -> ProviderError:
    """The error of a body with status 200 that is neither a stream nor a chat completion."""
    if not body.strip():
        return IncompleteError("the service sent an empty body", status=200)
    begun = body.lstrip()
    if any(begun.startswith(start) or start.startswith(begun) for start in _ANSWER_STARTS):
        return IncompleteError("the answer ended in its middle", status=200)
    what = "an HTML page" if looks_like_html(body) else "something else"
    return ProtocolError(
        f"expected a chat completion, found {what}: {plain_text(body)}",
        status=200,
        retry_limit=2 if looks_like_html(body) else None,
    )


def _message(error: Any) -> str:
    if isinstance(error, dict):
        for key in ("message", "detail", "error", "msg"):
            if error.get(key):
                return str(error[key])
    return str(error) if error else ""


def _status_in(error: Any) -> int | None:
    """A numeric code inside an error object, as gateways put the status of the service behind them."""
    if not isinstance(error, dict):
        return None
    for key in ("code", "status", "status_code"):
        value = error.get(key)
        if isinstance(value, str) and len(value) == 3 and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _by_words(error: Any, message: str) -> tuple[ErrorType, bool | None] | None:
    codes = ""
    if isinstance(error, dict):
        codes = f"{error.get('code') or ''} {error.get('type') or ''}".lower()
    lowered = message.lower()
    if any(words in lowered for words in _UNKNOWN_MODEL):
        return "invalid_request", True
    for words, kind, stops in _CODES:
        if any(word in codes for word in words):
            return kind, stops
    for words, kind, stops in _PROSE:
        if any(word in lowered for word in words):
            return kind, stops
    return None


def _fits(kind: ErrorType, status: int) -> bool:
    """Whether an error type told by words may refine a status; ``type`` fields are often vague."""
    if status in (401, 402, 403):
        return kind in ("auth", "quota", "refused", "rate_limit")
    if status == 429:
        return kind in ("rate_limit", "quota")
    if status >= 500:
        return kind in ("server", "rate_limit", "quota")
    return (
        kind in ("invalid_request", "refused", "quota", "auth", "rate_limit")
        if status in (400, 422)
        else (kind == "invalid_request")
    )
