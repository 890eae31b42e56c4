"""The JSON Schema of answers: read, checked before anything is sent, and made into a validator."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from batchchat.errors import ConfigError
from batchchat.jsonl import json_type

__all__ = ["SCHEMA_KEY", "bounded", "load_schema", "make_validator", "misfit"]

SCHEMA_KEY = "answer.schema"
_MOST_WORDS = 400


def load_schema(path: str) -> Any:
    """The JSON Schema in a file.

    Raises:
        ConfigError: It cannot be read or is no JSON.
    """
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read().decode("utf-8-sig"), parse_constant=_refuse, parse_float=_parse_float)
    except OSError as error:
        raise ConfigError(f"the JSON Schema cannot be read: {error.strerror or error}", path=path) from error
    except RecursionError as error:
        raise ConfigError("the JSON Schema is nested too deeply", path=path) from error
    except ValueError as error:
        raise ConfigError(f"expected a JSON Schema, found no JSON ({error})", path=path) from error
    if not isinstance(found, dict | bool):
        raise ConfigError(f"expected a JSON Schema (an object), found {json_type(found)}", path=path)
    return found


def make_validator(schema: Mapping[str, Any] | bool) -> Any:
    """A validator of the draft that the schema names, else of 2020-12.

    Raises:
        ConfigError: It is no JSON Schema, or a reference in it leads nowhere or out of it.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, UnknownType
    from jsonschema.validators import extend, validator_for
    from referencing import Registry

    plain: Any = dict(schema) if isinstance(schema, Mapping) else schema
    named = plain.get("$schema") if isinstance(plain, dict) else None
    unknown: Any = None
    kind: Any = validator_for(plain, default=unknown if isinstance(named, str) else Draft202012Validator)
    if kind is None:
        raise ConfigError(f"found the unknown $schema {named!r}, expected that of a JSON Schema draft", key=SCHEMA_KEY)
    try:
        kind.check_schema(plain)
        _check_references(plain, kind.ID_OF(kind.META_SCHEMA))
    except (SchemaError, UnknownType) as error:
        message = str(error.message if isinstance(error, SchemaError) else error)[:_MOST_WORDS]
        raise ConfigError(f"this is no JSON Schema: {message}", key=SCHEMA_KEY) from error
    except RecursionError as error:
        raise ConfigError("this JSON Schema is nested too deeply", key=SCHEMA_KEY) from error
    registry: Registry[Any] = Registry()  # an empty one: nothing is ever fetched
    extended: Any = extend(kind, {"uniqueItems": _unique_items})  # type: ignore[no-untyped-call]
    return extended(plain, registry=registry)


def misfit(validator: Any, answer: Any) -> str | None:
    """Why an answer does not fit a validator of ``make_validator``, and where; None where it fits."""
    from jsonschema.exceptions import best_match

    try:
        error = best_match(validator.iter_errors(answer))
    except RecursionError:
        return "it is nested too deeply for the schema, or the schema goes in circles over it"
    except Exception as trouble:  # what a validator can meet in an answer, such as integers that no float holds
        return f"the schema cannot be applied to it: {bounded(str(trouble) or type(trouble).__name__)}"
    return None if error is None else f"at {bounded(error.json_path)}: {bounded(error.message)}"


def bounded(text: str) -> str:
    """A text for a message: its beginning and its end, where it is long."""
    return text if len(text) <= _MOST_WORDS else f"{text[: _MOST_WORDS // 2]} … {text[-_MOST_WORDS // 2 :]}"


def _check_references(schema: Any, dialect: str) -> None:
    """Refuses references that lead nowhere or out of the schema, as no request should go out before that is known.

    Raises:
        ConfigError: There is one.
    """
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    root = specification_with(dialect).create_resource(schema)
    try:
        registry = Registry().with_resource(root.id() or "", root).crawl()
        stack = [(root, registry.resolver_with_root(root))]
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"an $id in the schema cannot be used: {error}", key=SCHEMA_KEY) from error
    while stack:
        resource, resolver = stack.pop()
        found = resource.contents if isinstance(resource.contents, Mapping) else {}
        for key in ("$ref", "$dynamicRef"):
            reference = found.get(key)
            if not isinstance(reference, str):
                continue
            try:
                resolver.lookup(reference)
            except (Unresolvable, ValueError) as error:
                where = (
                    "leads nowhere in the schema"
                    if reference.startswith("#")
                    else "was found, expected one inside the schema, as none is fetched"
                )
                raise ConfigError(f"the reference {reference[:_MOST_WORDS]!r} {where}", key=SCHEMA_KEY) from error
        stack.extend((part, resolver.in_subresource(part)) for part in resource.subresources())


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """``uniqueItems`` in a time that grows with the items; jsonschema's own compares each object with each other."""
    from jsonschema.exceptions import ValidationError

    if not (wanted and validator.is_type(instance, "array")):
        return
    seen = set()
    for item in instance:
        form = _hashable(item)
        if form in seen:
            yield ValidationError(f"{instance!r} has non-unique elements")
            return
        seen.add(form)


def _hashable(item: Any) -> Any:
    """Equal for equal JSON values: 1 is 1.0 and not true, objects have no order."""
    if isinstance(item, bool):
        return ("true",) if item else ("false",)
    if isinstance(item, list):
        return ("list", *map(_hashable, item))
    if isinstance(item, dict):
        return frozenset((key, _hashable(value)) for key, value in item.items())
    return item


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        _refuse(digits[:40])
    return number
