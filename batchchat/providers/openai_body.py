"""The body of a chat completion: a stream of chunks or one object, in the dialects that servers speak."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from batchchat.errors import IncompleteError, ProtocolError, ProviderError, ServerError
from batchchat.jsonl import json_type
from batchchat.providers.base import StreamEnd, StreamEvent, TextDelta, text_of
from batchchat.providers.http import Exchange
from batchchat.providers.openai_errors import object_error, page_error, refused_error
from batchchat.providers.text import checked_calls, load_lenient, plain_text, usage_of, without_surrogates
from batchchat.records import Completion, Usage
from batchchat.sse import ServerSentEvent, SSEDecoder

__all__ = ["CompletionReader"]


class CompletionReader:
    """Reads one answer to its terminal event: a ``finish_reason`` or ``[DONE]``."""

    def __init__(self, *, deltas: bool) -> None:
        self._deltas = deltas
        self._decoder = SSEDecoder()
        self._raw: list[bytes] = []
        self._is_stream = self._done = self._has_choice = False
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._model: str | None = None
        self._usage: Usage | None = None
        self.finished = False

    @property
    def partial(self) -> str:
        """Text that has arrived so far."""
        return without_surrogates("".join(self._text))

    async def read(self, reply: Exchange) -> AsyncGenerator[StreamEvent]:
        """The answer's events.

        Raises:
            ProviderError: No terminal event came, or a failure was told.
        """
        while chunk := await reply.read():
            if not self._is_stream:
                self._raw.append(chunk)
            for event in self._decoder.feed(chunk):
                if text := self._take(event, reply):
                    yield TextDelta(text)
            if self._done or (self._finish is not None and self._usage is not None):
                await reply.linger()
                break
        for event in self._decoder.finish():
            if text := self._take(event, reply, cut=True):
                yield TextDelta(text)
        if not self._is_stream:
            self._take_whole(b"".join(self._raw), reply)
        completion = self._completion(reply)
        self.finished = True
        yield StreamEnd(completion)

    def _take(self, event: ServerSentEvent, reply: Exchange, *, cut: bool = False) -> str:
        """Takes one event in; its text where deltas are wanted.

        After the finish reason the answer is whole: what cannot be read there, or reports a failure, only ends it.
        """
        if self._finish in (None, "error"):
            return self._take_event(event, reply, cut=cut)
        try:
            return self._take_event(event, reply, cut=cut)
        except ProviderError:
            self._done = True
            return ""

    def _take_event(self, event: ServerSentEvent, reply: Exchange, *, cut: bool) -> str:
        data = event.data
        if data.strip() == b"[DONE]":
            self._begin_stream()
            self._done = True
            return ""
        if not data.lstrip().startswith(b"{"):
            return ""
        try:
            chunk = load_lenient(data)
        except json.JSONDecodeError as error:
            self._begin_stream()
            if cut:
                return ""
            raise ProtocolError(f"expected JSON in an event, found: {plain_text(data)}", status=200) from error
        self._begin_stream()
        return self._take_object(chunk, reply)

    def _begin_stream(self) -> None:
        if not self._is_stream:
            self._is_stream = True
            self._raw.clear()

    def _take_whole(self, body: bytes, reply: Exchange) -> None:
        try:
            whole = load_lenient(body.strip())
        except json.JSONDecodeError as error:
            raise page_error(body) from error
        if not isinstance(whole, dict):
            raise page_error(body)
        self._take_object(whole, reply)
        self._done = True

    def _take_object(self, chunk: dict[str, Any], reply: Exchange) -> str:
        if chunk.get("error") or chunk.get("object") == "error":
            raise object_error(200, b"", chunk, reply.headers)
        if isinstance(model := chunk.get("model"), str):
            self._model = model or self._model
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage_of(usage)
        told = ""
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):
                told += self._take_choice(choice, reply)
        return told if self._deltas else ""

    def _take_choice(self, choice: dict[str, Any], reply: Exchange) -> str:
        self._has_choice = True
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            raise ProtocolError(
                f"expected an object as the message of a choice, found {json_type(message)}", status=200
            )
        text = ""
        if content := message.get("content"):
            text = content if isinstance(content, str) else text_of(content)
            self._text.append(text)
        if isinstance(refusal := message.get("refusal"), str):
            self._refusal.append(refusal)
        calls = message.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            _merge_call(self._tools, call, position)
        if reason := choice.get("finish_reason"):
            self._finish = str(reason)
            reply.expect_end()
        return text

    def _completion(self, reply: Exchange) -> Completion:
        """What the chunks make together.

        Raises:
            ProviderError: They make no answer.
        """
        text, refusal = self.partial, "".join(self._refusal)
        if self._finish is None and not self._done:
            raise IncompleteError("the answer ended without finish_reason or [DONE]")
        if not self._has_choice:
            if self._is_stream and not self._done:
                raise IncompleteError("the answer ended before its first choice")
            raise ProtocolError("expected a choice in the answer, found none (choices is empty or missing)", status=200)
        if self._finish == "content_filter" or (refusal and not text):
            raise refused_error(refusal or "a content filter stopped the answer")
        if self._finish == "error":
            raise ServerError("the service broke the answer off (finish_reason error)")
        tools = checked_calls([self._tools[index] for index in sorted(self._tools)]) or None
        if not text.strip() and tools is None:
            raise IncompleteError("the answer is empty")
        return Completion(
            text=text if text or tools is None else None,
            finish_reason=self._finish,
            model=self._model,
            usage=self._usage,
            tool_calls=tools,
            first_delta_s=reply.first_byte_s,
        )


def _merge_call(calls: dict[int, dict[str, Any]], piece: Any, position: int) -> None:
    """Adds a piece of a tool call to the calls so far; arguments come as text in pieces."""
    if not isinstance(piece, dict):
        return
    index = piece.get("index")
    call = calls.setdefault(index if isinstance(index, int) else position, {})
    for key, value in piece.items():
        if key == "index" or value is None:
            continue
        if key == "function" and isinstance(value, dict):
            function = call.get("function")
            if not isinstance(function, dict):
                function = call["function"] = {}
            for name, text in value.items():
                joined = name == "arguments" and isinstance(text, str) and isinstance(function.get(name), str)
                function[name] = function[name] + text if joined else text
        else:
            call[key] = value
