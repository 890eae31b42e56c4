"""The body of an AI Engine answer, told apart by what it is and not by its Content-Type.

A refused request may be SSE under ``application/json``, a site's own code may answer in JSON though a stream was
asked for, other plug-ins may print warnings before either, and a wall sends a page.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from batchchat.errors import IncompleteError, ProtocolError
from batchchat.providers.ai_engine_errors import page_error, prose_error
from batchchat.providers.ai_engine_wire import answer_of
from batchchat.providers.base import StreamEnd, StreamEvent, TextDelta
from batchchat.providers.http import Exchange
from batchchat.providers.text import load_lenient, plain_text, without_surrogates
from batchchat.sse import ServerSentEvent, SSEDecoder

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
        self._live: list[bytes] = []
        self._is_stream = False
        self.new_token: str | None = None
        self.finished = False

    @property
    def partial(self) -> str:
        """Text that has streamed so far."""
        return without_surrogates("".join(filter(None, map(_live_text, self._live))))

    async def read(self, reply: Exchange) -> AsyncGenerator[StreamEvent]:
        """The answer's events.

        Raises:
            ProviderError: No ``end`` came, or it tells a failure.
        """
        while chunk := await reply.read():
            if not self._is_stream:
                self._raw.append(chunk)
            for event in self._decoder.feed(chunk):
                if self._is_stream and not self._deltas and event.data.startswith(_LIVE):
                    self._live.append(event.data)
                    continue
                told = self._take(event, reply)
                if told is not None:
                    yield told
                    if self.finished:
                        await reply.linger()
                        return
        for event in self._decoder.finish():
            told = self._take(event, reply, cut=True)
            if told is not None:
                yield told
        if self.finished:
            return
        if self._is_stream:
            raise IncompleteError("the answer ended without its 'end' event")
        yield self._whole(b"".join(self._raw), reply)

    def _take(self, event: ServerSentEvent, reply: Exchange, *, cut: bool = False) -> StreamEvent | None:
        data = event.data
        if not data.startswith(b"{"):
            return None
        if data.startswith(_LIVE) and not self._deltas:
            self._live.append(data)
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
            self._live.append(data)
            text = _text_of_live(message)
            return TextDelta(text) if text else None
        if kind == "error":
            raise prose_error(str(message.get("data") or ""))
        return self._end(message.get("data"), reply) if kind == "end" else None

    def _begin_stream(self) -> None:
        self._is_stream = True
        self._raw.clear()

    def _end(self, data: Any, reply: Exchange) -> StreamEnd:
        try:
            answer = load_lenient(data) if isinstance(data, str) else data
        except json.JSONDecodeError as error:
            raise ProtocolError("expected JSON in the data of 'end', found something else", status=200) from error
        return self._answer(answer, reply)

    def _answer(self, answer: Any, reply: Exchange) -> StreamEnd:
        if not isinstance(answer, dict) or "success" not in answer:
            raise ProtocolError("expected an answer object with 'success', found something else", status=200)
        token = answer.get("new_token")
        self.new_token = token if isinstance(token, str) else None
        completion = answer_of(answer)
        self.finished = True
        return StreamEnd(msgspec.structs.replace(completion, model=self._model, first_delta_s=reply.first_byte_s))

    def _whole(self, body: bytes, reply: Exchange) -> StreamEnd:
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
