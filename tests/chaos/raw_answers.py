"""Answers of both protocols as bytes, right ones and those that were captured from real sites."""

import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["answer_body", "captured", "chunked", "good_answer", "http", "wire_headers"]

CAPTURES = Path(__file__).parents[1] / "captures"


def http(status: int | str, body: str | bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """An HTTP answer with a length."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(content) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


def chunked(body: bytes, *headers: str, size: int = 1 << 16) -> bytes:
    """An HTTP answer in chunks."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    lines = ["HTTP/1.1 200 OK", *headers, "Transfer-Encoding: chunked", "", ""]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return "\r\n".join(lines).encode() + chunks + b"0\r\n\r\n"


def answer_body(text: str, asked: dict[str, Any]) -> bytes:
    """The right answer to a prompt in the protocol and the way (stream or not) that the request's body asks for."""
    reply = f"Echo: {text}"
    if "newMessage" in asked:
        whole = {"success": True, "reply": reply, "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
        if not asked.get("stream"):
            return json.dumps(whole).encode()
        events = [{"type": "live", "data": reply}, {"type": "end", "data": json.dumps(whole)}]
        return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    about = {"id": "c-1", "object": "chat.completion", "model": "m"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": reply}
        return json.dumps({**about, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    deltas = [({"role": "assistant", "content": reply}, None), ({}, "stop")]
    told = [{**about, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in told) + b"data: [DONE]\n\n"


def wire_headers(asked: dict[str, Any]) -> str:
    """The content type that goes with ``answer_body``."""
    return "Content-Type: " + ("text/event-stream; charset=UTF-8" if asked.get("stream") else "application/json")


def good_answer(text: str, asked: dict[str, Any]) -> bytes:
    """``answer_body`` with its head: streams in chunks, objects with a length."""
    body = answer_body(text, asked)
    return chunked(body, wire_headers(asked)) if asked.get("stream") else http(200, body, wire_headers(asked))


@cache
def captured(name: str) -> bytes:
    """The answer in ``tests/captures/NAME.http``, head and body as they were received."""
    data = (CAPTURES / f"{name}.http").read_bytes()
    return data.partition(b"---- response ----\n")[2]
