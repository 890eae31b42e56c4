"""Structured answers: the JSON in an answer's text, the schema that it must fit, the value that is wanted of it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from batchchat.errors import ConfigError
from batchchat.jsonl import MAX_INPUT_DEPTH, json_type, nested_within

__all__ = ["AnswerRule", "Structured", "UnfitAnswerError", "complaint", "find_json", "load_schema", "make_rule"]

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_THOUGHT_END = "</think>"
_OPENING = re.compile(r"[{\[]")
# Prose with brackets by the thousand is no answer; each one costs an attempt to read JSON from there.
_MOST_TRIES = 200
_MOST_DIGITS = 4000
_MOST_WORDS = 400


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
        self._validator = None if schema is None else _validator(schema)
        self._expression = None if expression is None else _compiled(expression)

    def read(self, text: str) -> Structured:
        """The JSON in the text, the first that fits, and the value in it.

        Raises:
            UnfitAnswerError: There is none.
        """
        trouble: UnfitAnswerError | None = None
        for candidate in find_json(text):
            unfit = self._unfit(candidate)
            if unfit is None:
                return Structured(candidate, self._value(candidate))
            trouble = trouble or UnfitAnswerError(unfit)
        raise trouble or UnfitAnswerError(f"expected JSON, found {_shown(text)}")

    def _unfit(self, candidate: Any) -> str | None:
        if self._validator is None:
            return None
        from jsonschema.exceptions import best_match

        try:
            error = best_match(self._validator.iter_errors(candidate))
        except RecursionError:
            return "the schema goes in circles over this answer"
        if error is None:
            return None
        message = error.message
        if len(message) > _MOST_WORDS:
            message = f"{message[: _MOST_WORDS // 2]} … {message[-_MOST_WORDS // 2 :]}"
        return f"at {error.json_path}: {message}"

    def _value(self, parsed: Any) -> Any:
        if self._expression is None:
            return msgspec.UNSET
        from jmespath.exceptions import JMESPathError

        try:
            return self._expression.search(parsed)
        except (JMESPathError, RecursionError, TypeError, ValueError) as error:
            raise UnfitAnswerError(f"the expression of --extract cannot be worked out: {error}") from error


def find_json(text: str) -> Iterator[Any]:
    """JSON values in an answer, the likeliest first.

    These are the whole text, what stands in code fences, and objects and lists in the midst of prose. What a model
    thought aloud (up to ``</think>``) is passed over where something follows it.
    """
    _, thought, rest = text.rpartition(_THOUGHT_END)
    if thought and rest.strip():
        text = rest
    whole = _loaded(text)
    if whole is not _NOTHING:
        yield whole
        return
    for match in _FENCE.finditer(text):
        fenced = _loaded(match[2])
        if fenced is not _NOTHING:
            yield fenced
    yield from _in_prose(text)


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
        place = schema if isinstance(schema, str) and error.key == "answer.schema" else source
        raise ConfigError(error.message, path=place, key=None if place == schema else error.key) from error


def load_schema(path: str) -> Any:
    """The JSON Schema in a file.

    Raises:
        ConfigError: It cannot be read or is no JSON.
    """
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read().decode("utf-8-sig"), parse_constant=_refuse)
    except OSError as error:
        raise ConfigError(f"the JSON Schema cannot be read: {error.strerror or error}", path=path) from error
    except RecursionError as error:
        raise ConfigError("the JSON Schema is nested too deeply", path=path) from error
    except ValueError as error:
        raise ConfigError(f"expected a JSON Schema, found no JSON ({error})", path=path) from error
    if not isinstance(found, dict | bool):
        raise ConfigError(f"expected a JSON Schema (an object), found {json_type(found)}", path=path)
    return found


def _validator(schema: Mapping[str, Any] | bool) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, UnknownType
    from jsonschema.validators import validator_for
    from referencing import Registry

    plain: Any = dict(schema) if isinstance(schema, Mapping) else schema
    named = plain.get("$schema") if isinstance(plain, dict) else None
    unknown: Any = None
    kind = validator_for(plain, default=unknown if isinstance(named, str) else Draft202012Validator)
    if kind is None:
        raise ConfigError(f"found the unknown $schema {named!r}, expected that of a JSON Schema draft", key=_KEY)
    try:
        kind.check_schema(plain)
    except (SchemaError, UnknownType) as error:
        message = str(error.message if isinstance(error, SchemaError) else error)[:_MOST_WORDS]
        raise ConfigError(f"this is no JSON Schema: {message}", key=_KEY) from error
    except RecursionError as error:
        raise ConfigError("this JSON Schema is nested too deeply", key=_KEY) from error
    _check_references(plain)
    registry: Registry[Any] = Registry()  # an empty one: nothing is ever fetched
    return kind(plain, registry=registry)


def _check_references(schema: Any) -> None:
    """Refuses references that lead nowhere or out of the schema, as no request should go out before that is known.

    Raises:
        ConfigError: There is one.
    """
    anchors, references = set[str](), list[str]()
    stack = [schema]
    has_ids = False
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, Mapping):
            has_ids = has_ids or (item is not schema and isinstance(item.get("$id"), str))
            anchors |= {item[key] for key in ("$anchor", "$dynamicAnchor") if isinstance(item.get(key), str)}
            references += [item[key] for key in ("$ref", "$dynamicRef") if isinstance(item.get(key), str)]
            stack.extend(value for key, value in item.items() if key not in ("const", "enum", "default", "examples"))
    if has_ids:
        return
    for reference in references:
        if not reference.startswith("#"):
            raise ConfigError(
                f"found the reference {reference!r}, expected one inside the schema, as none is fetched", key=_KEY
            )
        fragment = reference[1:]
        if not (_leads_somewhere(schema, fragment) if fragment.startswith("/") else fragment in ("", *anchors)):
            raise ConfigError(f"the reference {reference!r} leads nowhere in the schema", key=_KEY)


def _leads_somewhere(schema: Any, pointer: str) -> bool:
    from urllib.parse import unquote

    item = schema
    for part in pointer[1:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(item, Mapping) and name in item:
            item = item[name]
        elif isinstance(item, list) and name.isdecimal() and int(name) < len(item):
            item = item[int(name)]
        else:
            return False
    return True


def _compiled(expression: str) -> Any:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.compile(expression)
    except (JMESPathError, RecursionError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"expected a JMESPath expression, found {expression!r}: {message}", key=_EXTRACT) from error


_KEY, _EXTRACT = "answer.schema", "answer.extract"
_NOTHING = object()


def _in_prose(text: str) -> Iterator[Any]:
    """Objects and lists that stand in a text, outermost ones only."""
    start, tries = 0, 0
    while (match := _OPENING.search(text, start)) and tries < _MOST_TRIES:
        tries += 1
        try:
            found, end = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            start = match.end()
            continue
        start = end
        if nested_within(found, MAX_INPUT_DEPTH):
            yield found


def _loaded(text: str) -> Any:
    """The JSON that a text is, or ``_NOTHING``."""
    try:
        found = _DECODER.decode(text.strip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return _NOTHING
    # A result line must stay readable for every reader.
    return found if nested_within(found, MAX_INPUT_DEPTH) else _NOTHING


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        _refuse("a number of so many digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        _refuse("a number that no double can hold")
    return number


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse)


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 120 else f"{short[:119]}…")
