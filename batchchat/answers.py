"""Structured answers: the schema that the JSON in an answer must fit, the value that is wanted of it."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from batchchat.answer_child import CheckingChild, CheckTooSlowError
from batchchat.answer_schema import SCHEMA_KEY, bounded, load_schema, make_validator, misfit
from batchchat.errors import ConfigError
from batchchat.json_finder import find_json
from batchchat.schema_cost import may_be_slow

__all__ = ["AnswerRule", "Structured", "UnfitAnswerError", "complaint", "make_rule", "read_aside"]

_EXTRACT_KEY = "answer.extract"
_MOST_WORDS = 400
_LONG_TEXT = 16_000  # characters; checking so many takes about 10 ms


class Structured(NamedTuple):
    """What was found in an answer; each part UNSET where nothing asked for it."""

    parsed: Any = msgspec.UNSET
    value: Any = msgspec.UNSET


class UnfitAnswerError(ValueError):
    """An answer that is no JSON or does not fit the schema; the text says where, what was found and expected."""


class AnswerRule:
    """What an answer's text must hold.

    Args:
        schema: JSON Schema that the JSON must fit; None for any JSON.
        expression: JMESPath expression of ``value``; None for no value.
        retries: How often an unfit answer is asked for again.

    Raises:
        ConfigError: The schema is none or refers to something outside itself, or the expression is none.
    """

    def __init__(self, schema: Mapping[str, Any] | bool | None, expression: str | None, *, retries: int) -> None:
        self.schema: dict[str, Any] | None = dict(schema) if isinstance(schema, Mapping) else None
        self.retries = retries
        self._validator = None if schema is None else make_validator(schema)
        self._child = CheckingChild(schema) if schema is not None and may_be_slow(schema) else None
        self._expression = None if expression is None else _compiled(expression)

    @property
    def is_slow(self) -> bool:
        """Whether reading any answer may take its time: another process checks it, within bounds."""
        return self._child is not None

    def read(self, text: str) -> Structured:
        """The JSON in the text, the first that fits, and the value in it.

        Raises:
            UnfitAnswerError: There is none.
        """
        trouble: UnfitAnswerError | None = None
        for candidate in find_json(text):
            try:
                if (unfit := self._unfit(candidate)) is None:
                    return Structured(candidate, self._value(candidate))
                raise UnfitAnswerError(unfit)
            except UnfitAnswerError as error:
                trouble = trouble or error
        raise trouble or UnfitAnswerError(f"expected JSON, found {_shown(text)}")

    def _unfit(self, candidate: Any) -> str | None:
        if self._validator is None:
            return None
        if self._child is not None:
            try:
                return self._child.misfit(candidate)
            except CheckTooSlowError as error:
                return f"{error}; make the patterns of the schema simpler"
            except OSError:  # no process can be had: checked here, as long as it may take
                self._child = None
        return misfit(self._validator, candidate)

    def _value(self, parsed: Any) -> Any:
        if self._expression is None:
            return msgspec.UNSET
        try:
            return self._expression.search(parsed)
        except Exception as error:  # of functions on values that they are not made for
            message = bounded(str(error) or type(error).__name__)
            raise UnfitAnswerError(f"the expression of --extract cannot be worked out: {message}") from error


async def read_aside(rule: AnswerRule, text: str) -> Structured:
    """What the rule finds in a text; a long one is read in a thread, to its end also where the task is to end.

    Raises:
        UnfitAnswerError: See ``AnswerRule.read``.
    """
    if len(text) < _LONG_TEXT and not rule.is_slow:
        return rule.read(text)
    reading = asyncio.ensure_future(asyncio.to_thread(rule.read, text))
    while not reading.done():
        # The answer is paid for; whoever delivers it sees by ``Task.cancelling`` that the task is to end.
        with suppress(asyncio.CancelledError):
            await asyncio.wait([reading])
    return reading.result()


def complaint(unfit: UnfitAnswerError, schema: Mapping[str, Any] | None) -> str:
    """The message that asks for the answer again."""
    wanted = "with JSON only, nothing before or after it"
    if schema is not None:
        shown = json.dumps(schema, ensure_ascii=False)
        wanted += f", that fits this JSON Schema:\n{shown}"
    return f"That answer cannot be used: {unfit}\nAnswer again, {wanted}"


def make_rule(
    schema: str | Mapping[str, Any] | None, expression: str | None, *, retries: int, source: str | None
) -> AnswerRule | None:
    """The rule that a job's ``answer`` section makes; None where it asks for nothing.

    Args:
        schema: The schema itself, or the path of its file.
        source: The job file, for messages.

    Raises:
        ConfigError: See ``AnswerRule``, or the file cannot be read.
    """
    if schema is None and expression is None:
        return None
    loaded = load_schema(schema) if isinstance(schema, str) else schema
    try:
        return AnswerRule(loaded, expression, retries=retries)
    except ConfigError as error:
        place = schema if isinstance(schema, str) and error.key == SCHEMA_KEY else source
        raise ConfigError(error.message, path=place, key=None if place == schema else error.key) from error


def _compiled(expression: str) -> Any:
    """The expression, known to call only functions that there are: a call that cannot work costs every answer.

    Raises:
        ConfigError: It is none.
    """
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        compiled = jmespath.compile(expression)
        message = next(_call_troubles(compiled.parsed), None)
    except (JMESPathError, RecursionError, ValueError) as error:
        message = " ".join(str(error).split())
    if message is not None:
        raise ConfigError(f"expected a JMESPath expression, found {expression!r}: {message}", key=_EXTRACT_KEY)
    return compiled


def _call_troubles(root: Any) -> Iterator[str]:
    """What is wrong with the calls in a parsed expression."""
    from jmespath.functions import Functions

    stack = [(root, False)]
    while stack:
        node, is_argument = stack.pop()
        if not isinstance(node, dict):
            continue
        is_call = node["type"] == "function_expression"
        if is_call:
            known, given = Functions.FUNCTION_TABLE.get(node["value"]), len(node["children"])
            if known is None:
                yield f"there is no function {node['value']}()"
            else:
                wanted = len(known["signature"])
                variadic = wanted > 0 and known["signature"][-1].get("variadic", False)
                if given < wanted or (given > wanted and not variadic):
                    yield f"{node['value']}() takes {wanted}{' or more' if variadic else ''} values, not {given}"
        elif node["type"] == "expref" and not is_argument:
            yield "& belongs in a call, such as sort_by(items, &name)"
        stack.extend((child, is_call) for child in node["children"])


def _shown(text: str) -> str:
    short = " ".join(text[:2000].split())
    return repr(short if len(short) <= 120 else f"{short[:119]}…")
