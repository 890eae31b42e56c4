"""The body of a response of the Responses API: semantic events or one object, to its terminal event.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from typing import Any

from batchchat.errors import IncompleteError, ProtocolError, ServerError
from batchchat.providers.exchange import Exchange
from batchchat.providers.openai_errors import object_error, refused_error
from batchchat.providers.openai_reader import OpenAIReader
from batchchat.providers.text import checked_calls, usage_of
from batchchat.records import Completion
from batchchat.surrogates import without_surrogates

__all__ = ["ResponsesReader"]

_TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_FINISH_REASONS = {"max_output_tokens": "length", "max_tokens": "length"}


class ResponsesReader(OpenAIReader):
    """Reads one response to its terminal event: ``response.completed`` or ``response.incomplete``."""

    def __init__(self, *, deltas: bool) -> None:
        super().__init__(deltas=deltas)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._response: dict[str, Any] | None = None

    @property
    def partial(self) -> str:
        return without_surrogates("".join(self._text))

    def _take_object(self, obj: dict[str, Any], reply: Exchange) -> str:
        kind, delta = obj.get("type"), obj.get("delta")
        if obj.get("object") == "response":
            self._end(obj, reply)
        elif kind == "error":
            raise object_error(200, b"", {key: value for key, value in obj.items() if key != "type"}, reply.headers)
        elif kind in _TERMINAL:
            response = obj.get("response")
            if not isinstance(response, dict):
                raise ProtocolError(f"expected a response in {kind}, found none", status=200)
            self._end({"status": str(kind).removeprefix("response.")} | response, reply)
        elif kind == "response.output_text.delta" and isinstance(delta, str):
            self._text.append(delta)
            return delta
        elif kind == "response.refusal.delta" and isinstance(delta, str):
            self._refusal.append(delta)
        elif kind == "response.output_item.done" and isinstance(item := obj.get("item"), dict):
            self._take_call(item)
        return ""

    def _take_checked(self, obj: dict[str, Any], reply: Exchange) -> str:
        """An error object inside a response is read with the response's status."""
        if obj.get("object") == "response" and obj.get("status") == "failed":
            return self._take_object(obj, reply)
        return super()._take_checked(obj, reply)

    def _end(self, response: dict[str, Any], reply: Exchange) -> None:
        self._response = response
        self._whole = self._over = True
        reply.expect_end()
        output = response.get("output")
        if isinstance(output, list) and output:  # authoritative over what streamed
            self._text, self._refusal, self._calls = [], [], []
            for item in output:
                if isinstance(item, dict):
                    self._take_item(item)

    def _take_item(self, item: dict[str, Any]) -> None:
        self._take_call(item)
        content = item.get("content")
        if item.get("type") != "message" or not isinstance(content, list):
            return
        for part in content:
            if not isinstance(part, dict):
                continue
            if part.get("type") == "output_text" and isinstance(part.get("text"), str):
                self._text.append(part["text"])
            elif part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
                self._refusal.append(part["refusal"])

    def _take_call(self, item: dict[str, Any]) -> None:
        """Keeps a function call, in the form that chat completions give it."""
        if item.get("type") == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            self._calls.append({"id": item.get("call_id"), "type": "function", "function": function})

    def _completion(self, reply: Exchange) -> Completion:
        response = self._response
        if response is None:
            if not self._is_stream:
                raise ProtocolError(
                    "expected a response, found an object of another kind; see provider.api", status=200
                )
            raise IncompleteError("the answer ended without response.completed")
        finish = self._finish_reason(response, reply)
        text, refusal = self.partial, "".join(self._refusal)
        if finish == "content_filter" or (refusal and not text):
            raise refused_error(refusal or "a content filter stopped the answer")
        if not text.strip() and not self._calls:
            raise IncompleteError("the answer is empty")
        model = response.get("model")
        return Completion(
            text=text if text or not self._calls else None,
            finish_reason=finish,
            model=model if isinstance(model, str) and model else None,
            usage=usage_of(response.get("usage")),
            tool_calls=checked_calls(self._calls) or None,
            first_delta_s=reply.first_byte_s,
        )

    def _finish_reason(self, response: dict[str, Any], reply: Exchange) -> str:
        """Why the answer ended, in the words of chat completions.

        Raises:
            ProviderError: It did not end as an answer.
        """
        status = response.get("status")
        if status == "failed":
            error = response.get("error") or {"message": "the service says that the response failed"}
            raise object_error(200, b"", {"error": error}, reply.headers)
        if status in ("cancelled", "in_progress", "queued"):
            raise ServerError(f"the service ended the answer with the status {status}", status=200)
        if status == "incomplete":
            details = response.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            return _FINISH_REASONS.get(str(reason), str(reason or "length"))
        return "tool_calls" if self._calls and not self._text else "stop"
