"""What AI Engine's refusals and error texts mean.

The plug-in tells most failures as prose with HTTP 200 (streams) or 500 (JSON), so the text decides: first codes
of the AI provider behind the site, then words. Source: captures of AI Engine 3.6.2, 2.8.9 and 2.5.3.
"""

import re
from collections.abc import Mapping
from typing import Any

from batchchat.errors import (
    AuthError,
    BlockedError,
    ErrorType,
    IncompleteError,
    InvalidRequestError,
    ProtocolError,
    ProviderError,
    ServerError,
    provider_error,
)
from batchchat.providers.status import status_error
from batchchat.providers.text import looks_like_html, plain_text
from batchchat.retry import MOST_WAIT_S, requested_wait_s

__all__ = ["is_nonce_code", "page_error", "prose_error", "refusal_error"]

_NONCE_CODES = frozenset({"rest_cookie_invalid_nonce", "rest_forbidden"})
_FEW = 2
_STOP = True

# Looked for in this order in the lower-cased text; the first hit decides.
_WORDS: tuple[tuple[tuple[str, ...], ErrorType, bool | None], ...] = (
    (("invalid_api_key", "incorrect api key", "invalid api key", "unauthorized query"), "auth", None),
    (("insufficient_quota", "exceeded your current quota", "billing_hard_limit", "billing_not_active"), "quota", None),
    (("rate_limit_exceeded", "rate limit", "too many requests"), "rate_limit", None),
    (("context_length_exceeded", "maximum context length"), "invalid_request", None),
    (("model_not_found", "api returned 404", "the model '"), "invalid_request", _STOP),
    (("content_filter", "moderation"), "refused", None),
    (("server_error", "overloaded", "internal server error", "curl error", "no content received"), "server", None),
    (("something went wrong on the server", "<html", "bad gateway", "service unavailable"), "server", None),
    (("invalid_request_error", "rejected", "are required"), "invalid_request", None),
    (("went to sleep", "reached the limit", "reached your limit", "limit reached", "usage limit"), "quota", None),
    (("try again", "timed out", "timeout", "time limit"), "server", None),
    (("exceeds the limit", "exceed limit", "too long"), "invalid_request", None),
    (("limit",), "quota", None),
)
_WAIT = re.compile(r"try again in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)(ms|s))?", re.IGNORECASE)
_CHALLENGE = (b"captcha", b"challenge", b"just a moment", b"cf-ray", b"access denied", b"verify you are human")


def is_nonce_code(code: Any) -> bool:
    """Whether the ``code`` of a refusal says that the nonce is not valid (any more)."""
    return isinstance(code, str) and code in _NONCE_CODES


def prose_error(message: str, *, status: int | None = None) -> ProviderError:
    """The error that a message of the plug-in (or of the AI provider behind it) stands for.

    A text that says nothing known is worth two more attempts, then it is this prompt's failure.
    """
    shown = plain_text(message, 500) or "the site reported an error without a text"
    lowered = message.lower()
    for words, kind, stops in _WORDS:
        if any(word in lowered for word in words):
            return provider_error(kind, shown, status=status, stops_run=stops, retry_after_s=_wait_in(message))
    return ServerError(shown, status=status, retry_limit=_FEW)


def refusal_error(status: int, body: bytes, parsed: Any, headers: Mapping[str, str]) -> ProviderError:
    """The error of an answer whose status is not 200 and that is not about the nonce."""
    if not isinstance(parsed, dict):
        html = looks_like_html(body)
        what = "an HTML page" if html else "no JSON"
        shown = f"HTTP {status} with {what}: {plain_text(body)}"
        return status_error(status, shown, headers, html=html)
    message, code = str(parsed.get("message") or ""), parsed.get("code")
    shown = plain_text(message) or f"HTTP {status}"
    if code == "rest_no_route":
        return InvalidRequestError(
            "the site has no such route; is AI Engine active there, and is the base URL its address?",
            status=status,
            stops_run=True,
        )
    if code == "internal_server_error":
        return ServerError(shown, status=status, retry_limit=_FEW)
    if is_nonce_code(code):
        return AuthError(shown, status=status)
    if "success" in parsed and status >= 500:
        error = prose_error(message, status=status)
        if error.retry_after_s is None:
            error.retry_after_s = requested_wait_s(headers)
        return error
    if "success" in parsed and status in (400, 403):
        return InvalidRequestError(shown, status=status)
    return status_error(status, shown, headers)


def page_error(body: bytes) -> ProviderError:
    """The error of a body with status 200 that is neither a stream nor an answer in JSON."""
    if not body.strip():
        return IncompleteError("the service sent an empty body", status=200)
    if body.lstrip().startswith((b"{", b":")):  # JSON that was cut, or nothing but comments of a stream
        return IncompleteError("the answer ended in its middle", status=200)
    if not looks_like_html(body):
        return ProtocolError(f"expected a chat answer, found: {plain_text(body)}", status=200)
    lowered = body[:65536].lower()
    shown = f"expected a chat answer, found an HTML page: {plain_text(body)}"
    if any(mark in lowered for mark in _CHALLENGE):
        return BlockedError(shown, status=200)
    return ProtocolError(shown, status=200, retry_limit=_FEW)


def _wait_in(message: str) -> float | None:
    """Seconds of a "try again in 1m20s" inside a text; None where there is none, or none with any sense."""
    match = _WAIT.search(message)
    if match is None or not any(match.groups()):
        return None
    hours, minutes, amount, unit = match.groups()
    seconds = float(amount or 0) / (1000 if unit == "ms" else 1)
    seconds += float(hours or 0) * 3600 + float(minutes or 0) * 60
    return seconds if seconds <= MOST_WAIT_S else None
