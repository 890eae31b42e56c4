"""The body of an AI Engine answer, told apart by what it is and not by its Content-Type.

A refused request may be SSE under ``application/json``, a site's own code may answer in JSON though a stream was
asked for, other plug-ins may print warnings before either, and a wall sends a page.
"""

import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from batchchat.errors import IncompleteError, ProtocolError
from batchchat.providers.ai_engine_errors import page_error, prose_error
from batchchat.providers.ai_engine_wire import answer_of
from batchchat.providers.base import StreamEnd, StreamEvent, TextDelta
from batchchat.providers.exchange import Exchange
from batchchat.providers.text import load_lenient, plain_text
from batchchat.records import Completion
from batchchat.sse import ServerSentEvent, SSEDecoder
from batchchat.surrogates import without_surrogates

__all__ = ["AnswerReader"]

_LIVE = (b'{"type":"live"', b'{"type": "live"')


class AnswerReader:
    """Reads one answer to its terminal event.

    Args:
        deltas: Whether text is told as it streams; if not, ``live`` events are only kept undecoded, for the
            partial text of a failure, as ``end`` carries the whole reply.
        model: Put into the completion, as the protocol names none.
    """

    def __init__(self, *, deltas: bool, model: str | None) -> None:
        self._deltas, self._model = deltas, model
        self._decoder = SSEDecoder()
        self._raw: list[bytes] = []
        self._live = bytearray()  # the data of ``live`` events, one on each line
        self._is_stream = False
        self._completion: Completion | None = None
        self.new_token: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is whole."""
        return self._completion is not None

    @property
    def partial(self) -> str:
        """Text that has streamed so far."""
        return without_surrogates("".join(filter(None, map(_live_text, bytes(self._live).split(b"\n")))))

    async def read(self, reply: Exchange) -> Completion:
        """The whole answer.

        Raises:
            ProviderError: No ``end`` came, or it tells a failure.
        """
        while self._completion is None and (chunk := await reply.read()):
            for _ in self._texts(chunk, reply):
                pass
        if self._completion is not None:
            await reply.linger()
            return self._completion
        for _ in self._last_texts(reply):
            pass
        return self._finished(reply)

    async def stream(self, reply: Exchange) -> AsyncGenerator[StreamEvent]:
        """The answer's events; see ``read``."""
        while self._completion is None and (chunk := await reply.read()):
            for text in self._texts(chunk, reply):
                yield TextDelta(text)
        if self._completion is not None:
            await reply.linger()
        else:
            for text in self._last_texts(reply):
                yield TextDelta(text)
        yield StreamEnd(self._finished(reply))

    def _texts(self, chunk: bytes, reply: Exchange) -> Iterator[str]:
        """Takes what has come; its texts where deltas are wanted."""
        if not self._is_stream:
            self._raw.append(chunk)
        if not self._deltas and (last := self._kept_but_last(chunk)) is not None:
            events = [ServerSentEvent(last)]
        else:
            events = self._decoder.feed(chunk)
        for event in events:
            if text := self._take(event, reply):
                yield text
            if self._completion is not None:
                return

    def _kept_but_last(self, chunk: bytes) -> bytes | None:
        """Keeps the events of an ordinary chunk, which are all ``live`` but maybe the last; the data of that one."""
        lines = self._decoder.plain_lines(chunk)
        if lines is None:
            return None
        before, _, last = lines.rpartition(b"\n")
        if before:
            form = _LIVE[0] if before.startswith(_LIVE[0]) else _LIVE[1]
            if not before.startswith(form) or before.count(b"\n") != before.count(b"\n" + form):
                return None
            self._begin_stream()
            self._keep(before)
        return last

    def _keep(self, live: bytes) -> None:
        self._live += live
        self._live += b"\n"

    def _last_texts(self, reply: Exchange) -> Iterator[str]:
        """Takes what the end of the body has cut off."""
        for event in self._decoder.finish():
            if text := self._take(event, reply, cut=True):
                yield text

    def _finished(self, reply: Exchange) -> Completion:
        if self._completion is not None:
            return self._completion
        if self._is_stream:
            raise IncompleteError("the answer ended without its 'end' event")
        return self._whole(b"".join(self._raw), reply)

    def _take(self, event: ServerSentEvent, reply: Exchange, *, cut: bool = False) -> str | None:
        """Takes an event; its text where deltas are wanted."""
        data = event.data
        if not data.startswith(b"{"):
            return None
        if data.startswith(_LIVE) and not self._deltas:
            self._keep(data.replace(b"\n", b" "))
            self._begin_stream()
            return None
        try:
            message = load_lenient(data)
        except json.JSONDecodeError as error:
            if cut:
                self._begin_stream()
                return None
            raise ProtocolError(f"expected JSON in an event, found: {plain_text(data)}", status=200) from error
        kind = message.get("type")
        if isinstance(kind, str):
            self._begin_stream()
        if kind == "live":
            self._keep(data.replace(b"\n", b" "))
            return _text_of_live(message)
        if kind == "error":
            raise prose_error(str(message.get("data") or ""))
        if kind == "end":
            self._end(message.get("data"), reply)
        return None

    def _begin_stream(self) -> None:
        if not self._is_stream:
            self._is_stream = True
            self._raw.clear()

    def _end(self, data: Any, reply: Exchange) -> None:
        try:
            answer = load_lenient(data) if isinstance(data, str) else data
        except json.JSONDecodeError as error:
            raise ProtocolError("expected JSON in the data of 'end', found something else", status=200) from error
        self._answer(answer, reply)

    def _answer(self, answer: Any, reply: Exchange) -> Completion:
        if not isinstance(answer, dict) or "success" not in answer:
            raise ProtocolError("expected an answer object with 'success', found something else", status=200)
        token = answer.get("new_token")
        self.new_token = token if isinstance(token, str) else None
        self._completion = answer_of(answer, model=self._model, first_delta_s=reply.first_byte_s)
        return self._completion

    def _whole(self, body: bytes, reply: Exchange) -> Completion:
        """An answer in JSON, perhaps behind warnings that something else printed."""
        for start in (0, body.find(b'{"')):
            if start < 0:
                break
            try:
                return self._answer(load_lenient(body[start:].strip()), reply)
            except json.JSONDecodeError as error:
                cause = error
        raise page_error(body) from cause


def _live_text(data: bytes) -> str | None:
    try:
        return _text_of_live(load_lenient(data))
    except json.JSONDecodeError:
        return None


def _text_of_live(message: dict[str, Any]) -> str | None:
    """Text of a ``live`` event that belongs to the reply: of no subtype, or ``content``."""
    text = message.get("data")
    return text if isinstance(text, str) and message.get("subtype") in (None, "content") else None
