"""The body of a chat completion: a stream of chunks or one object, in the dialects that servers speak."""

from collections.abc import Iterator
from typing import Any

from batchchat.errors import IncompleteError, ProtocolError, ServerError
from batchchat.jsonl import json_type
from batchchat.providers.exchange import Exchange
from batchchat.providers.openai_chunks import ChatChunk, decoded_chunks
from batchchat.providers.openai_errors import refused_error
from batchchat.providers.openai_reader import OpenAIReader, answer_text
from batchchat.providers.text import checked_calls, is_blank, usage_of
from batchchat.records import Completion, Usage
from batchchat.surrogates import without_surrogates

__all__ = ["CompletionReader"]

_MOST_CHOICES = 1024
_DONE_LINE = b"\n[DONE]"


class CompletionReader(OpenAIReader):
    """Reads one chat completion to its terminal event: the ``finish_reason`` of every choice, or ``[DONE]``.

    Args:
        deltas: Whether text is told as it streams; it is the first choice's.
        choices: How many choices were asked for (``n``).
    """

    def __init__(self, *, deltas: bool, choices: int = 1) -> None:
        super().__init__(deltas=deltas)
        self._wanted, self._ended = choices, False
        self._choices: dict[int, _Choice] = {}
        self._model: str | None = None
        self._usage: Usage | None = None

    @property
    def partial(self) -> str:
        first = self._choices.get(0)
        return without_surrogates("".join(first.text)) if first is not None else ""

    def _texts(self, chunk: bytes, reply: Exchange) -> Iterator[str]:
        lines = self._decoder.plain_lines(chunk)
        done = lines is not None and lines.endswith(_DONE_LINE)
        if lines is not None and done:
            lines = lines[: -len(_DONE_LINE)]
        chunks = None if lines is None else decoded_chunks(lines)
        if lines is None or chunks is None:
            return super()._texts(chunk, reply)
        self._begin_stream()
        return self._texts_of(chunks, reply, done=done)

    def _texts_of(self, chunks: list[ChatChunk], reply: Exchange, *, done: bool) -> Iterator[str]:
        for chunk in chunks:
            text = self._take_chunk(chunk, reply)
            if text and self.deltas:
                yield text
            if self._is_over:
                return
        self._done = self._done or done

    def _take_chunk(self, chunk: ChatChunk, reply: Exchange) -> str:
        """As ``_take_object``."""
        self._model = chunk.model or self._model
        if isinstance(chunk.usage, dict):
            self._usage = usage_of(chunk.usage)
            self._over = self._ended
        told = ""
        for position, piece in enumerate(chunk.choices):
            index, choice = self._choice(piece.index, position)
            text = None if piece.delta is None else piece.delta.content
            if text:
                choice.text.append(text)
                told += text if index == 0 else ""
            if piece.finish_reason:
                choice.finish = piece.finish_reason
            if choice.finish is not None:
                self._look_at_end(reply)
        return told

    def _take_object(self, obj: dict[str, Any], reply: Exchange) -> str:
        if isinstance(model := obj.get("model"), str):
            self._model = model or self._model
        if isinstance(usage := obj.get("usage"), dict):
            self._usage = usage_of(usage)
            self._over = self._ended
        told = ""
        choices = obj.get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict):
                told += self._take_choice(choice, position, reply)
        return told

    def _take_choice(self, piece: dict[str, Any], position: int, reply: Exchange) -> str:
        index, choice = self._choice(piece.get("index"), position)
        text = choice.take(piece)
        if choice.finish is not None:
            self._look_at_end(reply)
        return text if index == 0 else ""

    def _choice(self, index: Any, position: int) -> "tuple[int, _Choice]":
        """Index of a piece's choice, and the choice."""
        if not isinstance(index, int) or not 0 <= index < _MOST_CHOICES:
            index = position
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            self._ended = self._whole = self._over = False  # it has to come to its own end
        return index, choice

    def _look_at_end(self, reply: Exchange) -> None:
        choices = self._choices.values()
        self._ended = len(choices) >= self._wanted and all(choice.finish is not None for choice in choices)
        self._whole = self._ended and all(choice.finish != "error" for choice in choices)
        self._over = self._ended and self._usage is not None
        if self._ended:
            reply.expect_end()

    def _completion(self, reply: Exchange) -> Completion:
        """What the chunks make together: the first choice that is an answer, and the texts of all.

        Raises:
            ProviderError: None of them is an answer.
        """
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not self._done and (not choices or any(choice.finish is None for choice in choices)):
            raise IncompleteError("the answer ended without finish_reason or [DONE]")
        if not choices:
            raise ProtocolError("expected a choice in the answer, found none (choices is empty or missing)", status=200)
        for choice in choices:
            choice.close()
        answer = choices[0]
        if len(choices) > 1:
            answer = next((choice for choice in choices if choice.answers), answer)
        text, tools = answer.checked()
        return Completion(
            text=text,
            finish_reason=answer.finish,
            model=self._model,
            usage=self._usage,
            tool_calls=tools,
            first_delta_s=reply.first_byte_s,
            choices=[choice.whole_text if choice.answers else None for choice in choices] if len(choices) > 1 else None,
        )


class _Choice:
    """One choice, put together from its pieces.

    Attributes:
        whole_text: Its text once it is closed; None for a mere tool call.
    """

    __slots__ = ("finish", "refusal", "text", "tools", "whole_text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.tools: dict[int, dict[str, Any]] = {}
        self.finish: str | None = None
        self.whole_text: str | None = None

    def take(self, piece: dict[str, Any]) -> str:
        """Adds a piece; its text."""
        message = piece.get("delta") or piece.get("message") or {}
        if not isinstance(message, dict):
            raise ProtocolError(
                f"expected an object as the message of a choice, found {json_type(message)}", status=200
            )
        content = message.get("content")
        text = content if isinstance(content, str) else answer_text(content)
        if text:
            self.text.append(text)
        if isinstance(refusal := message.get("refusal"), str):
            self.refusal.append(refusal)
        calls = message.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            _merge_call(self.tools, call, position)
        if reason := piece.get("finish_reason"):
            self.finish = str(reason)
        return text

    def close(self) -> None:
        """Puts the text together, once nothing more is to come."""
        text = without_surrogates("".join(self.text))
        self.whole_text = text if text or not self.tools else None

    @property
    def answers(self) -> bool:
        """Whether ``checked`` would give an answer."""
        refused = self.finish in ("content_filter", "error") or (any(self.refusal) and not any(self.text))
        return not refused and (bool(self.tools) or not is_blank(self.whole_text or ""))

    def checked(self) -> tuple[str | None, list[dict[str, Any]] | None]:
        """Text and tool calls.

        Raises:
            ProviderError: It is no answer.
        """
        refusal = "".join(self.refusal)
        if self.finish == "content_filter" or (refusal and not any(self.text)):
            raise refused_error(refusal or "a content filter stopped the answer")
        if self.finish == "error":
            raise ServerError("the service broke the answer off (finish_reason error)")
        if not self.answers:
            raise IncompleteError("the answer is empty")
        calls = [self.tools[index] for index in sorted(self.tools)]
        return self.whole_text, checked_calls(calls) if calls else None


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
