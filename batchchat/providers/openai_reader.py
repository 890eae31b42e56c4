"""What the bodies of both OpenAI protocols have in common: a stream of JSON events, or one object."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from batchchat.errors import ProtocolError, ProviderError
from batchchat.providers.base import StreamEnd, StreamEvent, TextDelta
from batchchat.providers.exchange import Exchange
from batchchat.providers.openai_errors import object_error, page_error
from batchchat.providers.text import load_lenient, plain_text
from batchchat.records import Completion
from batchchat.sse import ServerSentEvent, SSEDecoder

__all__ = ["OpenAIReader", "answer_text"]

_THOUGHT = ("reasoning", "thinking")


def answer_text(content: Any) -> str:
    """The text of an answer's content, a text or a list of parts; what a model thought aloud is no part of it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") not in _THOUGHT]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


class OpenAIReader(ABC):
    """Reads one answer to its terminal event.

    Subclasses set ``_whole`` once the answer is all there (what cannot be read after that, or reports a failure, only
    ends it), and ``_over`` once nothing is worth waiting for any more.

    Attributes:
        deltas: Whether text is told as it streams.
        finished: Whether the answer is whole.
    """

    def __init__(self, *, deltas: bool) -> None:
        self.deltas = deltas
        self._decoder = SSEDecoder()
        self._raw: list[bytes] = []
        self._is_stream = False
        self._done = self._whole = self._over = False
        self.finished = False

    @property
    @abstractmethod
    def partial(self) -> str:
        """Text that has arrived so far."""

    @abstractmethod
    def _take_object(self, obj: dict[str, Any], reply: Exchange) -> str:
        """Takes an event's object, or the whole body's; its text where deltas are wanted.

        Raises:
            ProviderError: It tells a failure, or is none of this protocol's.
        """

    @abstractmethod
    def _completion(self, reply: Exchange) -> Completion:
        """What the events make together.

        Raises:
            ProviderError: They make no answer.
        """

    async def read(self, reply: Exchange) -> Completion:
        """The whole answer.

        Raises:
            ProviderError: No terminal event came, or a failure was told.
        """
        while not self._is_over and (chunk := await reply.read()):
            for _ in self._texts(chunk, reply):
                pass
        if self._is_over:
            await reply.linger()
        else:
            for _ in self._last_texts(reply):
                pass
        return self._finished(reply)

    async def stream(self, reply: Exchange) -> AsyncGenerator[StreamEvent]:
        """The answer's events; see ``read``."""
        while not self._is_over and (chunk := await reply.read()):
            for text in self._texts(chunk, reply):
                yield TextDelta(text)
        if self._is_over:
            await reply.linger()
        else:
            for text in self._last_texts(reply):
                yield TextDelta(text)
        yield StreamEnd(self._finished(reply))

    @property
    def _is_over(self) -> bool:
        """What follows counts no more, whether or not it came in the same chunk."""
        return self._done or self._over

    def _texts(self, chunk: bytes, reply: Exchange) -> Iterator[str]:
        """Takes what has come; its texts where deltas are wanted."""
        if not self._is_stream:
            self._raw.append(chunk)
        for event in self._decoder.feed(chunk):
            if text := self._take(event, reply):
                yield text
            if self._is_over:
                return

    def _last_texts(self, reply: Exchange) -> Iterator[str]:
        """Takes what the end of the body has cut off."""
        for event in self._decoder.finish():
            if text := self._take(event, reply, cut=True):
                yield text

    def _finished(self, reply: Exchange) -> Completion:
        if not self._is_stream:
            self._take_body(b"".join(self._raw), reply)
        completion = self._completion(reply)
        self.finished = True
        return completion

    def _take(self, event: ServerSentEvent, reply: Exchange, *, cut: bool = False) -> str:
        if not self._whole:
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
            obj = load_lenient(data)
        except json.JSONDecodeError as error:
            self._begin_stream()
            if cut:
                return ""
            raise ProtocolError(f"expected JSON in an event, found: {plain_text(data)}", status=200) from error
        if not self._is_stream:
            self._begin_stream()
        return self._take_checked(obj, reply)

    def _begin_stream(self) -> None:
        self._is_stream = True
        self._raw.clear()

    def _take_body(self, body: bytes, reply: Exchange) -> None:
        try:
            whole = load_lenient(body.strip())
        except json.JSONDecodeError as error:
            raise page_error(body) from error
        if not isinstance(whole, dict):
            raise page_error(body)
        self._take_checked(whole, reply)
        self._done = True

    def _take_checked(self, obj: dict[str, Any], reply: Exchange) -> str:
        if obj.get("error") or obj.get("object") == "error":
            raise object_error(200, b"", obj, reply.headers)
        told = self._take_object(obj, reply)
        return told if self.deltas else ""
