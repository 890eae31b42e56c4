"""Answers of the Responses API: semantic events of a stream, or one object.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import json
import time
from typing import Any

from batchchat.devserver.openai_wire import common_fault
from batchchat.devserver.pages import json_answer
from batchchat.devserver.question import FILTERED_TEXT, REFUSAL_TEXT, Reply, split_deltas
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.wire import Answer, cut_answer

__all__ = ["messages_of", "responses_answer"]

_STREAM = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"))


def messages_of(body: dict[str, Any]) -> Any:
    """A request's instructions and input as messages of a chat; None where there is no input."""
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}] if given else None
    if not isinstance(given, list) or not given:
        return None
    instructions = body.get("instructions")
    system = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
    return [*system, *given]


def responses_answer(
    reply: Reply, fault: str | None, scenario: Scenario, *, model: str, identifier: str, stream: bool
) -> Answer:
    """The answer to one request, with the fault it was drawn."""
    if (answer := common_fault(fault, scenario)) is not None:
        return answer
    made = _Response(reply, fault, scenario, model, identifier)
    if not stream:
        return cut_answer(json_answer(200, json.dumps(made.whole()).encode()), fault or "")
    pieces, trailers = made.events()
    return cut_answer(Answer(status=200, headers=_STREAM, pieces=tuple(pieces), trailers=trailers), fault or "")


class _Response:
    """One response on its way: its objects, and its events with their sequence numbers."""

    def __init__(self, reply: Reply, fault: str | None, scenario: Scenario, model: str, identifier: str) -> None:
        self._fault, self._scenario, self._identifier = fault, scenario, identifier
        self._number = -1
        self._cut = reply.finish == "length"
        self._text = {"content_filter": FILTERED_TEXT, "empty_reply": "", "content_null": ""}.get(
            fault or "", reply.text
        )
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        counts = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
        self._usage = counts | details | {"total_tokens": sum(counts.values())}
        self._head = {
            "id": f"resp_{identifier}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def whole(self) -> dict[str, Any]:
        """The response at its end."""
        told: dict[str, Any] = {"status": "completed", "error": None, "incomplete_details": None}
        if self._fault in ("error_event", "error_in_stream"):
            told = {"status": "failed", "error": {"code": "server_error", "message": self._scenario.error_event_text}}
        elif self._fault == "content_filter":
            told = {"status": "incomplete", "error": None, "incomplete_details": {"reason": "content_filter"}}
        elif self._cut:
            told = {"status": "incomplete", "error": None, "incomplete_details": {"reason": "max_output_tokens"}}
        output = [] if self._fault in ("choices_empty", "error_event", "error_in_stream") else [self._item("completed")]
        return self._head | told | {"output": output, "usage": self._usage}

    def events(self) -> tuple[list[bytes], int]:
        """Every event, and how many at the end are no text."""
        begun = self._head | {"status": "in_progress", "error": None, "incomplete_details": None, "output": []}
        pieces = [self._event(f"response.{name}", response=begun) for name in ("created", "in_progress")]
        if self._fault == "error_event":
            message = self._scenario.error_event_text
            return [*pieces, self._event("error", code="server_error", message=message, param=None)], 1
        whole = self.whole()
        end = f"response.{whole['status']}"
        if self._fault in ("choices_empty", "tool_call"):
            items = [self._event("response.output_item.done", output_index=0, item=item) for item in whole["output"]]
            return [*pieces, *items, self._event(end, response=whole)], 1
        where = {"item_id": f"msg_{self._identifier}", "output_index": 0, "content_index": 0}
        pieces.append(self._event("response.output_item.added", output_index=0, item=self._item("in_progress")))
        refused, broken = self._fault == "refusal", self._fault == "error_in_stream"
        kind, field = ("refusal", "refusal") if refused else ("output_text", "text")
        more: dict[str, Any] = {} if refused else {"logprobs": []}
        text = REFUSAL_TEXT if refused else self._text
        part = self._part(kind, field, "")
        pieces.append(self._event("response.content_part.added", **where, part=part))
        deltas = split_deltas(text)
        deltas = deltas[: max(1, len(deltas) // 2)] if broken else deltas
        pieces += [self._event(f"response.{kind}.delta", **where, delta=delta, **more) for delta in deltas]
        if not broken:
            pieces.append(self._event(f"response.{kind}.done", **where, **{field: text}, **more))
            pieces.append(self._event("response.content_part.done", **where, part=self._part(kind, field, text)))
            pieces.append(self._event("response.output_item.done", output_index=0, item=self._item("completed")))
        return [*pieces, self._event(end, response=whole)], 1 if broken else 4

    def _part(self, kind: str, field: str, text: str) -> dict[str, Any]:
        return {"type": kind, field: text} | ({} if kind == "refusal" else {"annotations": [], "logprobs": []})

    def _item(self, status: str) -> dict[str, Any]:
        if self._fault == "tool_call":
            call = {"call_id": "call_echo", "name": "echo", "arguments": '{"text": "echo"}'}
            return {"id": f"fc_{self._identifier}", "type": "function_call", "status": status} | call
        content: list[dict[str, Any]] = []
        if status == "completed":
            content = [self._part("output_text", "text", self._text)]
            if self._fault == "refusal":
                content = [self._part("refusal", "refusal", REFUSAL_TEXT)]
        message = {"id": f"msg_{self._identifier}", "type": "message", "role": "assistant", "status": status}
        return message | {"content": content}

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        data = json.dumps({"type": kind, "sequence_number": self._number, **fields})
        return f"event: {kind}\ndata: {data}\n\n".encode()
