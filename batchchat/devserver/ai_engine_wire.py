"""AI Engine's answers as values: the shapes that the plug-in and WordPress put on the wire.

Source: AI Engine 3.6.2 on WordPress 6.1, as recorded in ``tests/captures``.
"""

import json
from typing import Any

import msgspec

from batchchat.devserver.pages import gateway_page, html_page
from batchchat.devserver.question import Reply, split_deltas
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.wire import Answer, cut_answer

__all__ = [
    "LIMIT_TEXT",
    "REJECTED_TEXT",
    "Visit",
    "chat_answer",
    "core_error",
    "fatal_error",
    "plugin_error",
    "plugin_json",
    "public_answer",
    "session_answer",
    "told_error",
]

REJECTED_TEXT = "Sorry, your query has been rejected."
LIMIT_TEXT = "You have reached the limit (check the Insights Tab > Limits > Guests)."
_MESSAGES = {
    "rest_no_route": (404, "No route was found matching the URL and request method."),
    "rest_forbidden": (401, "Sorry, you are not allowed to do that."),
    "rest_cookie_invalid_nonce": (403, "Cookie check failed"),
    "wp_die": (503, "Briefly unavailable for scheduled maintenance. Check back in a minute."),
}
_FATAL = (
    "<p>There has been a critical error on this website.</p><p>"
    '<a href="https://wordpress.org/support/article/faq-troubleshooting/">'
    "Learn more about troubleshooting WordPress.</a></p>"
)
_COMMON = (
    ("X-Robots-Tag", "noindex"),
    ("X-Content-Type-Options", "nosniff"),
    ("Access-Control-Expose-Headers", "X-WP-Total, X-WP-TotalPages, Link"),
    ("Access-Control-Allow-Headers", "Authorization, X-WP-Nonce, Content-Disposition, Content-MD5, Content-Type"),
)
_JSON = ("Content-Type", "application/json; charset=UTF-8")
_NO_CACHE = (
    ("Expires", "Wed, 11 Jan 1984 05:00:00 GMT"),
    ("Cache-Control", "no-cache, must-revalidate, max-age=0"),
)
_SESSION_NO_CACHE = (
    ("Expires", "Thu, 19 Nov 1981 08:52:00 GMT"),
    ("Cache-Control", "no-store, no-cache, must-revalidate"),
    ("Pragma", "no-cache"),
)


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of an answer depend on.

    ``current_nonce`` is None before the nonce check has passed; ``new_token`` is set where the nonce sent was the
    previous one; ``cookie`` is a session id to set, None where the visitor sent one.
    """

    current_nonce: str | None = None
    new_token: str | None = None
    cookie: str | None = None

    def headers(self, *more: tuple[str, str], with_cookie: bool = False) -> tuple[tuple[str, str], ...]:
        """Headers of an answer of WordPress' REST interface."""
        made = [*_COMMON]
        if self.current_nonce is not None:
            made.append(("X-WP-Nonce", self.current_nonce))
        if with_cookie and self.cookie is not None:
            made.append(("Set-Cookie", f"mwai_session_id={self.cookie}; path=/; HttpOnly"))
        return (*made, *more)


def core_error(code: str, visit: Visit, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    """A refusal by WordPress itself."""
    status, message = _MESSAGES[code]
    value: dict[str, Any] = {"code": code, "message": message, "data": {"status": status}}
    if code == "wp_die":
        value["additional_errors"] = []
        return plugin_json(status, value, (*more, *_NO_CACHE))
    no_cache = _NO_CACHE if code == "rest_cookie_invalid_nonce" else ()
    return plugin_json(status, value, visit.headers(*more, *no_cache))


def fatal_error(visit: Visit) -> Answer:
    """PHP died before any output."""
    value = {"code": "internal_server_error", "message": _FATAL, "data": {"status": 500}, "additional_errors": []}
    return plugin_json(500, value, visit.headers(*_NO_CACHE))


def plugin_error(status: int, message: str, visit: Visit, *, with_cookie: bool = False) -> Answer:
    """A refusal by the plug-in, in JSON."""
    value: dict[str, Any] = {"success": False, "message": message}
    if visit.new_token is not None:
        value["new_token"] = visit.new_token
    return plugin_json(status, value, visit.headers(with_cookie=with_cookie))


def told_error(message: str, visit: Visit, *, stream: bool, early: bool = False) -> Answer:
    """A failure told to the user: an ``error`` event, or JSON with status 500.

    Args:
        early: Found before the stream began, so that the event comes as ``application/json``.
    """
    if not stream:
        return plugin_error(500, message, visit, with_cookie=not early)
    event = _event("error", message)
    if early:
        return Answer(status=200, headers=(_JSON, *visit.headers()), pieces=(event,), trailers=1)
    return Answer(status=200, headers=_stream_headers(visit), pieces=(event,), trailers=1)


def session_answer(nonce: str | None, session_id: str, php_session: str, visit: Visit) -> Answer:
    """What ``start_session`` answers; without its nonce where that is None."""
    value: dict[str, Any] = {"success": True, "sessionId": session_id}
    if nonce is not None:
        value["restNonce"] = nonce
    headers = visit.headers(("Set-Cookie", f"mwai_session_id={session_id}; path=/; HttpOnly"), ("Allow", "POST"))
    return plugin_json(200, value, (("Set-Cookie", f"PHPSESSID={php_session}; path=/"), *_SESSION_NO_CACHE, *headers))


def chat_answer(
    reply: Reply, fault: str | None, scenario: Scenario, visit: Visit, *, stream: bool, response_id: str
) -> Answer:
    """The answer to one submit, with the fault it was drawn."""
    if page := _page(fault, scenario, visit):
        return page
    if fault == "error_event":
        return told_error(scenario.error_event_text, visit, stream=stream)
    if fault == "empty_reply":
        reply = msgspec.structs.replace(reply, text="", output_tokens=0)
    result = _result(reply, visit, None if fault == "empty_reply" else response_id)
    if scenario.no_usage:
        del result["usage"]
    if not stream:
        if fault == "error_in_stream":
            return plugin_error(200, scenario.error_event_text, visit, with_cookie=True)
        return cut_answer(plugin_json(200, result, visit.headers(with_cookie=True)), fault or "")
    lives = [_event("live", delta) for delta in split_deltas(reply.text)]
    if scenario.chatter:
        lives = [_chatter("status", "Searching"), _chatter("thinking", "hmm"), *lives]
    last = _event("end", _dump(result))
    if fault == "error_in_stream":
        lives, last = lives[: max(1, len(lives) // 2)], _event("error", scenario.error_event_text)
    whole = Answer(status=200, headers=_stream_headers(visit), pieces=(*lives, last), trailers=1)
    return cut_answer(whole, fault or "")


def public_answer(
    reply: Reply, fault: str | None, scenario: Scenario, visit: Visit, extra: dict[str, Any] | None
) -> Answer:
    """The answer of the public API to a query, with the fault it was drawn; ``extra`` is what chatbots add."""
    if page := _page(fault, scenario, visit):
        return page
    if fault in ("error_event", "error_in_stream"):
        return plugin_error(500, scenario.error_event_text, visit)
    value: dict[str, Any] = {"success": True, "data": "" if fault == "empty_reply" else reply.text.strip()}
    if extra is not None:
        value["extra"] = extra
    headers = visit.headers(("Allow", "POST"), *_NO_CACHE, with_cookie=True)
    return cut_answer(plugin_json(200, value, headers), fault or "")


def plugin_json(status: int, value: Any, headers: tuple[tuple[str, str], ...]) -> Answer:
    """A JSON answer of the site."""
    return Answer(status=status, headers=(_JSON, *headers), pieces=(_dump(value).encode(),))


def _page(fault: str | None, scenario: Scenario, visit: Visit) -> Answer | None:
    if fault == "error_500":
        return fatal_error(visit)
    if fault in ("error_429", "error_503"):
        return gateway_page(int(fault.removeprefix("error_")), scenario.retry_after)
    if fault == "error_502_html":
        return gateway_page(502)
    if fault in ("html_200", "html_403"):
        return html_page(int(fault.removeprefix("html_")))
    return None


def _result(reply: Reply, visit: Visit, response_id: str | None) -> dict[str, Any]:
    usage = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "price": None,
        "queries": 1,
        "accuracy": "estimated",
    }
    result: dict[str, Any] = {"success": True, "reply": reply.text.strip(), "images": None, "actions": []}
    result |= {"shortcuts": [], "blocks": [], "usage": usage}
    if response_id is not None:
        result["responseId"] = response_id
    if visit.new_token is not None:
        result["new_token"] = visit.new_token
    return result


def _stream_headers(visit: Visit) -> tuple[tuple[str, str], ...]:
    kind = ("Content-Type", "text/event-stream;charset=UTF-8")
    return (kind, *visit.headers(("Cache-Control", "no-cache"), with_cookie=True))


def _event(kind: str, data: str) -> bytes:
    return b'data: {"type":"%b","data":%b}\n\n' % (kind.encode(), _dump(data).encode())


def _chatter(subtype: str, text: str) -> bytes:
    value = {
        "type": "live",
        "data": text,
        "timestamp": 0.0,
        "subtype": subtype,
        "visibility": "collapsed",
        "metadata": {},
    }
    return b"data: %b\n\n" % _dump(value).encode()


def _dump(value: Any) -> str:
    """JSON as PHP writes it: one line of ASCII, slashes escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/")
