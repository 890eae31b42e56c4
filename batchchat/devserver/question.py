"""What is asked and what the echo says to it, the same for both protocols."""

import json
import re
from typing import Any

import msgspec

from batchchat.devserver.scenario import Scenario

__all__ = ["FILTERED_TEXT", "REFUSAL_TEXT", "Question", "Reply", "echo", "fitted", "is_special", "split_deltas"]

REFUSAL_TEXT = "I'm sorry, I can't help with that."
FILTERED_TEXT = "The first part of the answer"
_CHARACTER = "🙂"
_LONG = re.compile(r"/long (\d{1,9})\Z")
_FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor "
# An answer of 10 MB in words would be a million events.
_MOST_DELTAS = 2000


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One chat request.

    ``prompt`` is the last user message, ``messages`` what came as messages (AI Engine: without the prompt), ``system``
    the instructions, ``params`` the other fields of the body. ``history`` counts the messages before the prompt,
    without system messages; ``turn`` the user messages with the prompt.
    """

    protocol: str
    prompt: str
    messages: list[Any]
    system: str | None
    history: int
    turn: int
    stream: bool
    model: str | None = None
    bot_id: str | None = None
    chat_id: str | None = None
    params: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: its text, tokens in and out (words, where the echo answers), and why it ends."""

    text: str
    input_tokens: int
    output_tokens: int
    finish: str = "stop"


def echo(question: Question, scenario: Scenario, attempt: int, fault: str | None) -> Reply:
    """The answer to a question; the same question, attempt and scenario give the same one."""
    text = fitted(_text(question, scenario, attempt), scenario, fault)
    texts = [question.prompt, question.system or "", *map(_content, question.messages)]
    if question.protocol == "openai":
        texts = [_content(message) for message in question.messages]
    return Reply(text=text, input_tokens=sum(map(_words, texts)), output_tokens=_words(text))


def fitted(text: str, scenario: Scenario, fault: str | None) -> str:
    """The text with what a scenario or a fault needs in it."""
    if fault == "cut_mid_character" and text.isascii():
        text = f"{_CHARACTER} {text}"
    return text + "\udc00" if scenario.lone_surrogate else text


def is_special(prompt: str) -> bool:
    """Whether a prompt is an order to the echo, ``/debug`` or ``/long N``, whatever answers the others."""
    return prompt.startswith("/debug") or _LONG.match(prompt) is not None


def split_deltas(text: str) -> list[str]:
    """The text in pieces of a word and the white space after it; longer pieces where there would be too many."""
    words = re.findall(r"\S+\s*|\s+", text)
    step = -(-len(words) // _MOST_DELTAS)
    return words if step <= 1 else ["".join(words[at : at + step]) for at in range(0, len(words), step)]


def _text(question: Question, scenario: Scenario, attempt: int) -> str:
    prompt = question.prompt
    if prompt.startswith("/debug"):
        return _debug(question, attempt)
    if scenario.replies:
        return scenario.replies[min(question.turn, len(scenario.replies)) - 1]
    if long := _LONG.match(prompt):
        return filled("", int(long[1]))
    return filled(f"Echo: {prompt}", scenario.reply_chars)


def filled(text: str, characters: int) -> str:
    """The text, made up to so many characters; a longer one stays as it is."""
    missing = characters - len(text)
    if missing <= 0:
        return text
    start = f"{text} " if text and missing > 1 else text
    filler = _FILLER * (characters // len(_FILLER) + 1)
    # A last character of white space would not survive the protocol, which strips the reply.
    return (start + filler[: characters - len(start) - 1]) + "."


def _debug(question: Question, attempt: int) -> str:
    told = {
        "protocol": question.protocol,
        "prompt": question.prompt,
        "messages": question.messages,
        "instructions": question.system,
        "history": question.history,
        "turn": question.turn,
        "attempt": attempt,
        "stream": question.stream,
        "model": question.model,
        "botId": question.bot_id,
        "chatId": question.chat_id,
        "params": question.params,
    }
    return json.dumps(told, ensure_ascii=False)


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _words(text: str) -> int:
    return len(text.split())
