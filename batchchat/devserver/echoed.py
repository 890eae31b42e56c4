"""Answers that tell a request back, as chatty gateways and debug modes do: its headers and body in every error."""

import html
import json
from typing import Any

import msgspec

from batchchat.devserver.exchange import Arrival, BadJson, Decision
from batchchat.devserver.wire import Answer

__all__ = ["with_request_echoed"]


def with_request_echoed(decision: Decision, arrival: Arrival) -> Decision:
    """The decision with the request in the texts of its error: a page, a JSON object, an ``error`` event.

    Where nothing but a connection fails there is no such text, and the text of an answer stays what it is.
    """
    if decision.fault is None:
        return decision
    body = None if isinstance(arrival.body, BadJson) else arrival.body
    lines = [f"{arrival.method} {arrival.path}", *(f"{name}: {value}" for name, value in arrival.headers.items())]
    told = " | ".join([*lines, json.dumps(body, ensure_ascii=False)])
    build = decision.build
    rebuilt = None if build is None else (lambda reply: _echoed(build(reply), told))
    return msgspec.structs.replace(decision, answer=_echoed(decision.answer, told), build=rebuilt)


def _echoed(answer: Answer, told: str) -> Answer:
    kind = next((value for name, value in answer.headers if name == "Content-Type"), "")
    if kind.startswith("text/html"):
        page = b"<body><p>" + html.escape(told).encode("utf-8", "surrogatepass") + b"</p>"
        pieces = [piece.replace(b"<body>", page) for piece in answer.pieces]
    else:
        pieces = [
            b"\n".join(_line(line, told, answer.status) for line in piece.split(b"\n")) for piece in answer.pieces
        ]
    return msgspec.structs.replace(answer, pieces=tuple(pieces))


def _line(line: bytes, told: str, status: int) -> bytes:
    """A line that is an error's object, alone or as an event's data, with the text in it; any other as it is."""
    prefix = b"data: " if line.startswith(b"data: ") else b"data:" if line.startswith(b"data:") else b""
    try:
        value = json.loads(line[len(prefix) :])
    except ValueError:
        return line
    if not isinstance(value, dict) or not _is_error(value, status):
        return line
    if value.get("type") == "error" and isinstance(value.get("data"), str):  # an event of AI Engine's
        value["data"] = f"{value['data']} {told}"
    data = json.dumps(_told(value, told), separators=(",", ":"))
    escaped = data.replace("/", "\\/") if b"\\/" in line else data
    return prefix + escaped.encode()


def _is_error(value: dict[str, Any], status: int) -> bool:
    failed = value.get("error") or value.get("success") is False or value.get("type") in ("error", "response.failed")
    return bool(failed) or status >= 400


def _told(value: Any, told: str) -> Any:
    """A JSON value with the text behind every message in it."""
    if not isinstance(value, dict):
        return value
    made = {}
    for name, each in value.items():
        made[name] = f"{each} {told}" if name == "message" and isinstance(each, str) else _told(each, told)
    return made
