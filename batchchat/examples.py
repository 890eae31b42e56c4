"""Few-shot examples: the answered lines of a file as messages that go before every prompt."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from batchchat.errors import PromptFileError
from batchchat.input_lines import Ask, read_ask
from batchchat.input_settings import ExamplesFile

if TYPE_CHECKING:
    from batchchat.templates import Template

__all__ = ["MOST_EXAMPLES", "Example", "example_messages", "read_examples", "with_examples"]

MOST_EXAMPLES = 1000
_RESULT_KEYS = frozenset(("id", "response", "error", "attempts", "input"))
_SYSTEM_ROLES = ("system", "developer")
Example = tuple[int, dict[str, Any], str]


def read_examples(file: ExamplesFile, records: Iterable[tuple[int, dict[str, Any] | str]]) -> tuple[Example, ...]:
    """Line number, fields and answer of each example.

    Args:
        records: Line number and object of each of the file's lines, or what is wrong with it.

    Raises:
        PromptFileError: A line is no answered example, there is none, or there are more than 1000.
    """
    examples: list[Example] = []
    for line_number, record in records:
        if len(examples) == MOST_EXAMPLES:
            raise PromptFileError(file.path, f"found more than {MOST_EXAMPLES} examples; set a limit for them")
        if isinstance(record, str):
            raise PromptFileError(file.path, record, line_number)
        try:
            examples.append((line_number, *_answered(record, file.answer)))
        except ValueError as error:
            raise PromptFileError(file.path, str(error), line_number) from error
        if len(examples) == file.limit:
            break
    if not examples:
        raise PromptFileError(file.path, "holds no example, expected answered prompts")
    return tuple(examples)


def example_messages(path: str, examples: Iterable[Example], template: "Template | None") -> list[dict[str, Any]]:
    """The messages of all examples, each a question as the template makes it and its answer.

    Raises:
        PromptFileError: The template cannot make a question of an example, or it asks for none.
    """
    messages: list[dict[str, Any]] = []
    for line_number, fields, answer in examples:
        try:
            messages += _question(fields, template)
        except ValueError as error:
            raise PromptFileError(path, str(error), line_number) from error
        messages.append({"role": "assistant", "content": answer})
    return messages


def with_examples(ask: Ask, examples: list[dict[str, Any]]) -> Ask:
    """What is asked, with the examples before it and after the system messages that it brings."""
    messages = ask.messages
    start = next((at for at, message in enumerate(messages) if message["role"] not in _SYSTEM_ROLES), len(messages))
    return ask._replace(messages=[*messages[:start], *examples, *messages[start:]])


def _answered(record: dict[str, Any], answer_field: str) -> tuple[dict[str, Any], str]:
    """Fields and answer of an example, which may be a line of a results file.

    Raises:
        ValueError: It has no answer.
    """
    fields, answers = record, record
    if record.keys() >= _RESULT_KEYS and isinstance(record["input"], dict):
        if record["error"] is not None:
            raise ValueError("found a result that is a failure, expected an answered one")
        fields = record["input"]
        # A field of the input may be a better answer than the stored one, such as a label.
        answers = {**fields, "response": record["response"]}
    if answer_field not in answers:
        raise ValueError(f"expected the answer in {answer_field!r}, found only {', '.join(map(repr, answers))[:500]}")
    return fields, _text(answers[answer_field], answer_field)


def _text(answer: Any, field: str) -> str:
    """An answer as the text of a message: numbers as they are, lists and objects as JSON."""
    if isinstance(answer, str) and answer.strip():
        return answer
    if answer is None or answer == "" or isinstance(answer, str):
        found = "null" if answer is None else "an empty text"
        raise ValueError(f"expected the answer in {field!r}, found {found}")
    return json.dumps(answer, ensure_ascii=False)


def _question(fields: dict[str, Any], template: "Template | None") -> list[dict[str, Any]]:
    ask = read_ask(fields, template, None)
    if ask.turns:
        raise ValueError("found 'turns', expected an example with one question")
    for message in ask.messages:
        if message["role"] in _SYSTEM_ROLES:
            raise ValueError("found a system message, expected an example's question; the system prompt is the job's")
    return ask.messages
