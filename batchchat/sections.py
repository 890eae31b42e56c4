"""Plain values to settings structs, with errors that say where, what was found and what was expected.

The struct alone defines a section: its types, constraints and docstring serve the checks, the JSON Schema and the
messages. A value that is written in a form of its own (a duration, a rate) has a ``Form`` in its field's ``Meta``.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from batchchat.errors import ConfigError
from batchchat.locations import EnvText, KeyPath, Locations
from batchchat.scalars import (
    describe_type,
    describe_value,
    fits,
    in_bounds,
    looks_secret,
    names_secret,
    retyped,
    surprise,
    typed,
)

__all__ = ["Form", "convert_section", "free_value", "public_fields"]

S = TypeVar("S", bound=msgspec.Struct)

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a value is written where that is not its type's own way; stands in ``Meta(extra={"form": …})``.

    Attributes:
        parse: From what is written (never None) to the value; raises ValueError with "expected …, found …".
        words: What is written, in words, for tables: ``a duration``.
        schema: JSON Schema of what is written.
        many: Whether a list of such values may stand there as well; the value is a list in any case.
    """

    parse: Callable[[Any], Any]
    words: str
    schema: dict[str, Any]
    many: bool = False


def convert_section(
    raw: Mapping[str, Any],
    struct_type: type[S],
    *,
    locations: Locations | None = None,
    key: str = "",
    owner: str = "",
    elsewhere: Mapping[str, str] | None = None,
) -> S:
    """Builds a settings struct from a section of a job.

    Args:
        raw: The section as read or overridden.
        struct_type: A msgspec struct; unknown keys are errors whether or not it forbids them.
        locations: Where the values were written.
        key: The section's name in the job, ``provider``; empty for the whole job.
        owner: Whose settings they are, for messages: ``provider openai``.
        elsewhere: Keys that stand in another section, with their path there; unknown ones are looked up in it.

    Raises:
        ConfigError: The first value that does not fit: its option, or its file, line and key path.
    """
    shaper = _Shaper(Locations() if locations is None else locations, owner, elsewhere or {})
    keys: KeyPath = (key,) if key else ()
    shaped = shaper.shape(raw, inspect.type_info(struct_type), keys)
    try:
        return msgspec.convert(shaped, struct_type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        found = re.findall(r"\.([^.\[`]+)|\[(\d+)\]", path)
        where = (*keys, *(name or int(index) for name, index in found))
        raise shaper.locations.error(where, message.replace("`", "")) from error


def free_value(value: Any, locations: Locations, keys: KeyPath) -> Any:
    """A value of no given type, as JSON will carry it; what YAML 1.1 reads in a surprising way is refused."""
    return _Shaper(locations, "", {}).free(value, keys)


def public_fields(kind: inspect.StructType) -> dict[str, inspect.Field]:
    """Fields of a struct that a job may set, by key; those with ``Meta(extra={"internal": True})`` are left out."""
    return {
        field.encode_name: field
        for field in kind.fields
        if not (isinstance(field.type, inspect.Metadata) and (field.type.extra or {}).get("internal"))
    }


class _Shaper:
    """Walks a value along the type it should have; the result is what msgspec converts without further ado."""

    def __init__(self, locations: Locations, owner: str, elsewhere: Mapping[str, str]) -> None:
        self.locations = locations
        self._owner, self._elsewhere = owner, elsewhere

    def shape(self, value: Any, kind: inspect.Type, keys: KeyPath) -> Any:
        if isinstance(kind, inspect.Metadata):
            if (off := (kind.extra or {}).get("off")) is not None:
                value = _switched(value, off)
            form = (kind.extra or {}).get("form")
            return self._formed(value, form, keys) if isinstance(form, Form) else self.shape(value, kind.type, keys)
        if isinstance(kind, inspect.UnionType):
            return self._union(value, kind, keys)
        if isinstance(kind, inspect.StructType):
            return self._struct(value, kind, keys)
        if isinstance(kind, inspect.DictType) and isinstance(value, Mapping):
            return {str(name): self.shape(item, kind.value_type, (*keys, name)) for name, item in value.items()}
        if isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(value, list | tuple):
            return [self.shape(item, kind.item_type, (*keys, index)) for index, item in enumerate(value)]
        if isinstance(kind, inspect.AnyType):
            return self.free(value, keys)
        return self._scalar(value, kind, keys)

    def free(self, value: Any, keys: KeyPath) -> Any:
        if isinstance(value, Mapping):
            return {str(name): self.free(item, (*keys, name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.free(item, (*keys, index)) for index, item in enumerate(value)]
        if isinstance(value, EnvText):
            return retyped(value) if value.plain else str(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.locations.error(keys, f"expected a finite number, found {value}")
        if trap := surprise(value, self.locations.mark(keys)):
            raise self.locations.error(keys, f"found {describe_value(value)}{trap}")
        return value

    def _struct(self, value: Any, kind: inspect.StructType, keys: KeyPath) -> Any:
        if isinstance(value, kind.cls):
            return value
        if not isinstance(value, Mapping):
            raise self._wrong(value, kind, keys)
        fields = public_fields(kind)
        shaped = {}
        for name, item in value.items():
            if name not in fields:
                raise self._unknown(str(name), fields, keys)
            shaped[name] = self.shape(item, fields[name].type, (*keys, name))
        for name, field in fields.items():
            if field.required and name not in shaped:
                raise self.locations.error(keys, f"the key {name} is missing; expected {describe_type(field.type)}")
        return shaped

    def _unknown(self, name: str, fields: Mapping[str, inspect.Field], keys: KeyPath) -> ConfigError:
        import difflib  # for mistakes only

        message = f"unknown key {name!r}" + (f" of {self._owner}" if self._owner else "")
        near = difflib.get_close_matches(name, fields, 1)
        if names_secret(name):
            how = "name that with api_key_env" if "api_key_env" in fields else "write ${NAME} where it is needed"
            message += f"; secrets do not stand in a job, put yours into an environment variable and {how}"
        elif guess := self._elsewhere.get(name) or (near[0] if near else None):
            message += f"; did you mean {guess}?"
        else:
            message += f"; expected one of {', '.join(fields)}"
        return self.locations.error((*keys, name), message)

    def _union(self, value: Any, kind: inspect.UnionType, keys: KeyPath) -> Any:
        optional = any(isinstance(member, inspect.NoneType) for member in kind.types)
        if optional and (value is None or (isinstance(value, EnvText) and not value.strip())):
            return None
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        if len(members) == 1:
            return self.shape(value, members[0], keys)
        for member in members:
            try:
                return self.shape(value, member, keys)
            except ConfigError:
                continue
        raise self._wrong(value, kind, keys)

    def _formed(self, value: Any, form: Form, keys: KeyPath) -> Any:
        if form.many and isinstance(value, list | tuple):
            return [self._parsed(item, form, (*keys, index)) for index, item in enumerate(value)]
        parsed = self._parsed(value, form, keys)
        return [parsed] if form.many else parsed

    def _parsed(self, value: Any, form: Form, keys: KeyPath) -> Any:
        if value is None:
            raise self.locations.error(keys, "expected a value, found nothing; give one or remove the key")
        try:
            return form.parse(_plain(value))
        except ValueError as error:
            found = str(error)
            if isinstance(value, str):
                found = found.replace(repr(str(value)), describe_value(value))  # which tells no secret
            raise self.locations.error(keys, f"{found}{surprise(value, self.locations.mark(keys))}") from error

    def _scalar(self, value: Any, kind: inspect.Type, keys: KeyPath) -> Any:
        if isinstance(kind, inspect.StrType) and isinstance(value, str):
            return self._text(value, kind, keys)
        fitting = typed(value, kind) if isinstance(value, EnvText) else value if fits(value, kind) else None
        if fitting is None or not in_bounds(fitting, kind):
            raise self._wrong(value, kind, keys)
        return fitting

    def _text(self, value: str, kind: inspect.StrType, keys: KeyPath) -> str:
        if str(keys[-1]).endswith("_env") and not _VARIABLE_NAME.fullmatch(value):
            raise self.locations.error(
                keys,
                "expected the name of an environment variable, such as OPENAI_API_KEY; "
                "what was found is not shown, as it may be the key itself",
            )
        if not isinstance(value, EnvText) and keys[0] == "provider" and looks_secret(value):
            raise self.locations.error(
                keys,
                "what stands here looks like a secret; put it into an environment variable and name that with "
                "api_key_env, or write ${NAME} here",
            )
        if len(value) < (kind.min_length or 0):
            raise self.locations.error(keys, "expected text, found an empty one")
        return str(value)

    def _wrong(self, value: Any, kind: inspect.Type, keys: KeyPath) -> ConfigError:
        message = f"expected {describe_type(kind)}, found {describe_value(value)}"
        if isinstance(kind, inspect.LiteralType) and isinstance(value, str):
            import difflib

            near = difflib.get_close_matches(value, [str(item) for item in kind.values], 1)
            message += f"; did you mean {near[0]}?" if near else ""
        return self.locations.error(keys, message + surprise(value, self.locations.mark(keys), kind))


def _switched(value: Any, off: Mapping[str, Any]) -> Any:
    """A section that may be ``off`` or ``on`` as a whole (YAML reads both as false and true), as the mapping it is."""
    word = value.strip().lower() if isinstance(value, str) else value
    return dict(off) if word in (False, "off", "false", "no") else {} if word in (True, "on", "true", "yes") else value


def _plain(value: Any) -> Any:
    if isinstance(value, EnvText):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
