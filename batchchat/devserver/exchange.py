"""A request as the protocols see it, and what they decide; where a path leads."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import orjson

from batchchat.devserver.question import Question, Reply
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.state import RequestKind
from batchchat.devserver.wire import Answer

__all__ = [
    "Arrival",
    "BadJson",
    "Decision",
    "Family",
    "find_route",
    "identifier",
    "kind_of",
    "parse_body",
    "prompt_of",
    "text_of",
]

Family = Literal["wordpress", "openai", "health", "none"]

_KINDS: dict[str, RequestKind] = {
    "/mwai/v1/start_session": "session",
    "/mwai-ui/v1/chats/submit": "chat",
    "/mwai/v1/simpleChatbotQuery": "chat",
    "/mwai/v1/simpleTextQuery": "chat",
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/models": "models",
}


class BadJson(msgspec.Struct, frozen=True):
    """Why a body is no JSON: PHP's number and words for it."""

    code: int
    message: str


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One request; ``route`` is the path without folders in front of it and without a trailing slash.

    ``body`` is the parsed JSON, ``BadJson``, or None for an empty body. ``headers`` have lower-case names.
    """

    number: int
    time_s: float
    method: str
    family: Family
    route: str
    kind: RequestKind
    path: str
    headers: dict[str, str]
    body: Any
    has_session_cookie: bool


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and why it is this one; ``slow`` for one that has its latency and counts as an answered chat.

    ``build`` makes the same answer with another reply to ``question``, for a backend that is no echo; both are None
    where no reply is given. ``piecewise``: an event of the stream depends on its own piece of the text alone.
    """

    answer: Answer
    fault: str | None = None
    attempt: int = 0
    slow: bool = False
    question: Question | None = None
    build: Callable[[Reply], Answer] | None = None
    piecewise: bool = True


def find_route(path: str, rest_route: str | None) -> tuple[Family, str]:
    """The protocol that a path belongs to, and its route there.

    Services may live in a folder (``/blog/wp-json/…``, ``/api/v1/models``); WordPress also takes ``?rest_route=``.
    """
    if rest_route is not None:
        return "wordpress", "/" + rest_route.strip("/")
    trimmed = "/" + path.strip("/")
    _folder, found, route = trimmed.partition("/wp-json/")
    if found:
        return "wordpress", "/" + route
    if trimmed == "/healthz":
        return "health", trimmed
    for known in ("/v1/chat/completions", "/v1/responses", "/v1/models"):
        if trimmed.endswith(known):
            return "openai", known
    if "/openai/deployments/" in trimmed and trimmed.endswith("/chat/completions"):  # as on Azure
        return "openai", "/v1/chat/completions"
    return ("openai", trimmed) if trimmed.startswith("/v1/") else ("none", trimmed)


def kind_of(route: str) -> RequestKind:
    """What a request is counted as."""
    return _KINDS.get(route, "other")


def parse_body(raw: bytes) -> Any:
    """The JSON of a body, None where it is empty, ``BadJson`` where it is none."""
    if not raw.strip():
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        value = json.loads(raw.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return BadJson(5, "Malformed UTF-8 characters, possibly incorrectly encoded")
    except UnicodeEncodeError:
        return BadJson(10, "Single unpaired UTF-16 surrogate in unicode escape")
    except (ValueError, RecursionError):
        return BadJson(4, "Syntax error")
    return value


def prompt_of(body: Any) -> str | None:
    """The text of the last user message, in a body of either protocol; None where there is none."""
    if not isinstance(body, dict):
        return None
    for key in ("newMessage", "message"):
        if isinstance(body.get(key), str):
            return str(body[key]).strip()
    messages = body.get("messages") or body.get("input")
    if isinstance(messages, str):
        return messages
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content"))
    return None


def text_of(content: Any) -> str:
    """The text of a message's content: a text, or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def identifier(scenario: Scenario, text: str, number: int) -> str:
    """40 hex digits that depend on nothing but the seed, a text and a number."""
    key = f"{scenario.seed}\0{number}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=20).hexdigest()
