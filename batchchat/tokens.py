"""How many tokens a text is: counted with tiktoken where that is installed and knows the model, else by a rule.

The rule takes the kind of a character and its length in UTF-8, which tells its script well enough: four ASCII letters
or spaces make a token, two ASCII digits or marks, two characters of two bytes (accents, Greek, Cyrillic, Hebrew,
Arabic), one of three (Chinese, Japanese, Korean, Thai, Hindi), and a character of four bytes (emoji) makes two.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import msgspec

from batchchat.jsonl import dump_line
from batchchat.providers.base import text_of
from batchchat.records import Completion, Usage

__all__ = [
    "Encoding",
    "Estimate",
    "TokenCounter",
    "answer_text",
    "bytes_of",
    "estimated_usage",
    "most_output",
    "rule_tokens",
]

# Quarters of a token by byte; the bytes after the first one of a character count nothing.
_QUARTERS = bytes(
    (1 if chr(byte).isalpha() or chr(byte).isspace() else 2) if byte < 0x80 else
    0 if byte < 0xC0 else 2 if byte < 0xE0 else 4 if byte < 0xF0 else 8
    for byte in range(256)
)  # fmt: skip
_ONE_QUARTER = bytes(byte for byte in range(0x80) if _QUARTERS[byte] == 1)
_PER_MESSAGE, _PER_REQUEST = 4, 3  # what a chat template puts around a message, and in front of the answer
_MOST_PER_MESSAGE = 16
_PER_PART = 1000
_MOST_TOKENS = 10**9  # what a ``max_tokens`` without sense counts as
_MOST_CHARACTERS = 1_000_000  # tiktoken is slow with longer ones, and the rule is good enough for them
_MOST_CHOICES = 1000
_QUICK_CHARACTERS = 20_000  # some 5 ms
_DESCRIBING = ("tools", "functions", "response_format")  # parameters that a service puts into the prompt


class Encoding(Protocol):
    """What is used of tiktoken's encodings."""

    def encode(self, text: str, *, disallowed_special: Any) -> list[int]:
        """Token numbers of a text."""
        ...


class Estimate(msgspec.Struct, frozen=True):
    """Input tokens of a request before it is sent.

    Attributes:
        likely: What the service will count, give or take.
        most: What it will hardly count more than: a token for each byte where tokens are not counted, as no
            tokenizer in use makes more.
    """

    likely: int
    most: int


class TokenCounter:
    """Counts tokens; without an encoding for the model by the rule.

    Attributes:
        per_part: What an image or a file counts.

    Args:
        notice: ``(message, level)``; told once where tiktoken is installed but cannot be used.
        load: Gives the encoding for a model, None where the model is not known to it; raises ImportError without
            tiktoken, and whatever it likes where the encoding cannot be had.
        load_s: Seconds that loading may take.
    """

    per_part = _PER_PART

    def __init__(
        self,
        notice: Callable[[str, int], None] = lambda message, level: None,
        load: Callable[[str], Encoding | None] | None = None,
        load_s: float = 10.0,
    ) -> None:
        self._notice, self._load_s = notice, load_s
        self._load = _load_tiktoken if load is None else load
        self._encodings: dict[str, Encoding | None] = {}
        self._broken = False
        self._loading = threading.Lock()

    def prepare(self, model: str | None) -> None:
        """Loads the encoding for a model, which may take seconds; to be called off the event loop."""
        if model is None or self._broken or model in self._encodings:
            return
        with self._loading:
            if model not in self._encodings and not self._broken:
                self._encodings[model] = self._loaded(model)

    def count(self, text: str, model: str | None = None) -> int:
        """Tokens of a text, exact where the model's encoding is there."""
        encoding = self._encodings.get(model) if model is not None else None
        if encoding is None or len(text) > _MOST_CHARACTERS:
            return rule_tokens(text)
        return len(encoding.encode(text, disallowed_special=()))

    def is_quick(self, characters: int, model: str | None) -> bool:
        """Whether texts of that length are counted at once: the encoding is there, or none is to be had."""
        if model is None or self._broken:
            return True
        return model in self._encodings and (characters < _QUICK_CHARACTERS or self._encodings[model] is None)

    def estimate(
        self,
        messages: Sequence[Mapping[str, Any]],
        system: str | None,
        params: Mapping[str, Any],
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> Estimate:
        """Input tokens of a request: its texts, what a chat template adds, a thousand for each image or file."""
        texts: list[str] = []
        others = 0
        for message in messages:
            content = message.get("content")
            texts.append(text_of(content))
            if type(content) is not str:
                others += _PER_PART * _other_parts(content)
            if calls := message.get("tool_calls"):
                texts.append(_dumped("tool_calls", calls))
        if system:
            texts.append(system)
        if shown := _shown(params, schema):
            texts.append(dump_line(shown).decode())
        count = len(messages) + bool(system)
        exact = model is not None and self._encodings.get(model) is not None
        likely, most = _PER_MESSAGE * count + _PER_REQUEST, 0
        for text in texts:
            likely += self.count(text, model) if exact else rule_tokens(text)
            most += bytes_of(text)
        if exact:
            most = likely + likely // 10
        return Estimate(likely + others, most + _MOST_PER_MESSAGE * (count + 1) + others)

    def _loaded(self, model: str) -> Encoding | None:
        """The encoding, by a thread that nobody waits for at the end: tiktoken's download knows no timeout."""
        found: list[Encoding | None] = []
        trouble: list[BaseException] = []

        def work() -> None:
            try:
                found.append(self._load(model))
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=work, name="batchchat-tiktoken", daemon=True)
        thread.start()
        thread.join(self._load_s)
        if found:
            return found[0]
        self._broken = True
        if not (trouble and isinstance(trouble[0], ImportError)):
            why = f"{type(trouble[0]).__name__}" if trouble else f"no answer within {self._load_s:g} s"
            self._notice(
                f"tiktoken cannot load its encoding for {model} ({why}); tokens are estimated from characters", 0
            )
        return None


def rule_tokens(text: str) -> int:
    """Tokens that a text is likely to be, by the rule of this module; 0 only for an empty text."""
    if text.isascii():
        return -(-(len(text) + len(text.encode().translate(None, _ONE_QUARTER))) // 4)
    data = text.encode("utf-8", "surrogatepass").translate(_QUARTERS)
    return -(-sum(quarters * data.count(quarters) for quarters in (1, 2, 4, 8)) // 4)


def bytes_of(text: str) -> int:
    """Bytes of a text in UTF-8; no tokenizer in use makes more tokens of it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def most_output(params: Mapping[str, Any]) -> int | None:
    """Most tokens that the answers to one request may have by its parameters; None where they set no bound."""
    names = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxTokens")
    given = [count for name in names if (count := _count(params.get(name))) > 0]
    if not given:
        return None
    choices = _count(params.get("n"))
    return min(*given, _MOST_TOKENS) * (choices if 0 < choices <= _MOST_CHOICES else 1)


def estimated_usage(told: Usage | None, sent: Callable[[], int], received: Callable[[], int]) -> Usage:
    """The usage that a service told, with estimates in the place of counts that it did not tell."""
    if told is None:
        return Usage(input_tokens=sent(), output_tokens=received(), estimated=True)
    if told.input_tokens is not None and told.output_tokens is not None:
        return told
    return msgspec.structs.replace(
        told,
        input_tokens=sent() if told.input_tokens is None else told.input_tokens,
        output_tokens=received() if told.output_tokens is None else told.output_tokens,
        estimated=True,
    )


def answer_text(completion: Completion) -> str:
    """What of an answer the service counts as output: its text and its tool calls."""
    calls = completion.tool_calls
    return (completion.text or "") + (_dumped("tool_calls", calls) if calls else "")


def _dumped(name: str, value: Any) -> str:
    return dump_line({name: value}).decode()


def _shown(params: Mapping[str, Any], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """What else of a request the model gets to read."""
    shown = {name: params[name] for name in _DESCRIBING if params.get(name)} if params else {}
    if schema:
        shown["schema"] = schema
    return shown


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _other_parts(content: Any) -> int:
    """Parts of a message's content that are no text."""
    if not isinstance(content, list):
        return 0
    return sum(isinstance(part, Mapping) and not isinstance(part.get("text"), str) for part in content)


def _load_tiktoken(model: str) -> Encoding | None:
    tiktoken = import_module("tiktoken")
    try:
        encoding: Encoding = tiktoken.encoding_for_model(model)
    except KeyError:
        return None
    return encoding
