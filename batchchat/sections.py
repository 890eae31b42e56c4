"""Plain values to settings structs, with errors that say where, what was found and what was expected.

The struct alone defines a section: its types, constraints and docstring serve the checks, the JSON Schema and the
messages. A value that is written in a form of its own (a duration, a rate) has a ``Form`` in its field's ``Meta``.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from batchchat.errors import ConfigError
from batchchat.job_yaml import EnvText, KeyPath, Locations

__all__ = ["Form", "convert_section", "free_value"]

S = TypeVar("S", bound=msgspec.Struct)

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)e[-+]?\d+", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KEY_VALUE = re.compile(
    r"\b(sk|pk|rk|gsk|xai|hf|ghp|pplx|key)[-_][A-Za-z0-9_-]{12,}|\bAIza[A-Za-z0-9_-]{20,}|\beyJ[A-Za-z0-9_-]{10,}\."
    r"|^\s*(bearer|basic)\s+\S{16,}",
    re.IGNORECASE,
)
_KEY_NAMES = re.compile(r"(.*_)?(api_?key|key|token|secret|password|bearer|authorization)", re.IGNORECASE)
_LONGEST_SHOWN = 60


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a value is written where that is not its type's own way; stands in ``Meta(extra={"form": …})``.

    Attributes:
        parse: From what is written (never None) to the value; raises ValueError with "expected …, found …".
        schema: JSON Schema of what is written.
    """

    parse: Callable[[Any], Any]
    schema: dict[str, Any]


def convert_section(
    raw: Mapping[str, Any], struct_type: type[S], *, locations: Locations | None = None, key: str = ""
) -> S:
    """Builds a settings struct from a section of a job.

    Args:
        raw: The section as read or overridden.
        struct_type: A msgspec struct; its unknown keys are errors whether or not it forbids them.
        locations: Where the values were written.
        key: The section's name in the job, ``provider``; empty for the whole job.

    Raises:
        ConfigError: The first value that does not fit: its option, or its file, line and key path.
    """
    shaper = _Shaper(Locations() if locations is None else locations)
    keys: KeyPath = (key,) if key else ()
    kind = inspect.type_info(struct_type)
    shaped = shaper.shape(raw, kind, keys)
    try:
        return msgspec.convert(shaped, struct_type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        found = re.findall(r"\.([^.\[`]+)|\[(\d+)\]", path)
        where = (*keys, *(name or int(index) for name, index in found))
        raise shaper.locations.error(where, message.replace("`", "")) from error


def free_value(value: Any, locations: Locations, keys: KeyPath) -> Any:
    """A value of no given type, as JSON will carry it; what YAML 1.1 reads in a surprising way is refused."""
    return _Shaper(locations).free(value, keys)


class _Shaper:
    """Walks a value along the type it should have."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations
        self._elsewhere: dict[str, str] = {}

    def shape(self, value: Any, kind: inspect.Type, keys: KeyPath) -> Any:
        if isinstance(kind, inspect.Metadata):
            form = (kind.extra or {}).get("form")
            if isinstance(form, Form):
                return self._formed(value, form, keys)
            return self.shape(value, kind.type, keys)
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
        mark = self.locations.mark(keys)
        written = mark.text if mark is not None and mark.plain and mark.text is not None else ""
        if isinstance(value, bool) and written and written.lower() not in ("true", "false"):
            meaning = str(value).lower()
            raise self.locations.error(keys, f"YAML reads {written} as {meaning}; write {meaning}, or put it in quotes")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.locations.error(keys, f"expected a finite number, found {value}")
        if isinstance(value, EnvText):
            return _retyped(value) if value.plain else str(value)
        if isinstance(value, str) and _EXPONENT.fullmatch(written):
            raise self.locations.error(keys, _exponent_hint(written))
        return value

    def _struct(self, value: Any, kind: inspect.StructType, keys: KeyPath) -> Any:
        if isinstance(value, kind.cls):
            return value
        if not isinstance(value, Mapping):
            raise self._wrong(value, kind, keys)
        fields = {field.encode_name: field for field in kind.fields if not _internal(field)}
        if not keys:
            self._elsewhere = _nested_names(fields)
        shaped = {}
        for name, item in value.items():
            if name not in fields:
                raise self._unknown(str(name), fields, keys)
            shaped[name] = self.shape(item, fields[name].type, (*keys, name))
        for name, field in fields.items():
            if field.required and name not in shaped:
                raise self.locations.error(keys, f"the key {name} is missing; expected {expected(field.type)}")
        return shaped

    def _unknown(self, name: str, fields: Mapping[str, inspect.Field], keys: KeyPath) -> ConfigError:
        where = (*keys, name)
        if _KEY_NAMES.fullmatch(name.replace("-", "_")):
            how = "api_key_env" if "api_key_env" in fields else "${NAME} in headers"
            return self.locations.error(
                where,
                f"unknown key; secrets do not stand in a job, put yours into an environment variable and name that with {how}",
            )
        near = difflib.get_close_matches(name, fields, 1)
        guess = near[0] if near else self._elsewhere.get(name)
        known = f"did you mean {guess}?" if guess else f"expected one of {', '.join(fields)}"
        return self.locations.error(where, f"unknown key; {known}")

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
        if value is None:
            raise self.locations.error(keys, "expected a value, found nothing; give one or remove the key")
        try:
            return form.parse(_plain(value))
        except ValueError as error:
            raise self.locations.error(keys, f"{error}{self._surprise(value, keys)}") from error

    def _scalar(self, value: Any, kind: inspect.Type, keys: KeyPath) -> Any:
        if isinstance(kind, inspect.StrType) and isinstance(value, str):
            return self._text(value, kind, keys)
        if isinstance(value, EnvText):
            typed = _typed(value, kind)
        else:
            typed = value if _fits(value, kind) else None
        if typed is None or not _in_bounds(typed, kind):
            raise self._wrong(value, kind, keys)
        return typed

    def _text(self, value: str, kind: inspect.StrType, keys: KeyPath) -> str:
        name = str(keys[-1]) if keys else ""
        if name.endswith("_env") and not _VARIABLE_NAME.fullmatch(value):
            raise self.locations.error(
                keys,
                "expected the name of an environment variable, such as OPENAI_API_KEY; what was found is not shown, "
                "as it may be the key itself",
            )
        if not isinstance(value, EnvText) and keys[:1] == ("provider",) and _KEY_VALUE.search(value):
            raise self.locations.error(
                keys,
                "what stands here looks like a secret; put it into an environment variable and name that with "
                "api_key_env, or write ${NAME} here",
            )
        if len(value) < (kind.min_length or 0):
            raise self.locations.error(keys, "expected text, found an empty one")
        return str(value)

    def _wrong(self, value: Any, kind: inspect.Type, keys: KeyPath) -> ConfigError:
        message = f"expected {expected(kind)}, found {_found(value)}{self._surprise(value, keys)}"
        if isinstance(kind, inspect.LiteralType) and isinstance(value, str):
            near = difflib.get_close_matches(value, [str(item) for item in kind.values], 1)
            message += f"; did you mean {near[0]}?" if near else ""
        if not isinstance(value, EnvText) and self.locations.mark(keys) is not None:
            message += _quotes_hint(value, kind)
        return self.locations.error(keys, message)

    def _surprise(self, value: Any, keys: KeyPath) -> str:
        """What YAML 1.1 made of the text that stands in the file, where that is not what it looks like."""
        mark = self.locations.mark(keys)
        if mark is None or mark.text is None or not mark.plain or isinstance(value, EnvText):
            return ""
        if isinstance(value, bool) and mark.text.lower() not in ("true", "false"):
            return f" (YAML reads {mark.text} as {str(value).lower()}; put it in quotes for text)"
        if isinstance(value, str) and _EXPONENT.fullmatch(mark.text):
            return f" ({_exponent_hint(mark.text)})"
        return ""


def expected(kind: inspect.Type) -> str:
    """What a value of the type looks like, in words."""
    if isinstance(kind, inspect.Metadata):
        return expected(kind.type)
    if isinstance(kind, inspect.UnionType):
        parts = [expected(member) for member in kind.types if not isinstance(member, inspect.NoneType)]
        return " or ".join(parts)
    if isinstance(kind, inspect.LiteralType):
        values = ", ".join(str(value) for value in kind.values)
        return values if len(kind.values) == 1 else f"one of {values}"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (
                ("of at least", kind.ge),
                ("above", kind.gt),
                ("of at most", kind.le),
                ("below", kind.lt),
            )
            if bound is not None
        ]
        return " ".join([noun, " and ".join(bounds)]).strip()
    if isinstance(kind, inspect.DictType | inspect.StructType):
        return "a mapping"
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return "a list"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    return "text" if isinstance(kind, inspect.StrType) else "another value"


def _internal(field: inspect.Field) -> bool:
    return isinstance(field.type, inspect.Metadata) and bool((field.type.extra or {}).get("internal"))


def _nested_names(fields: Mapping[str, inspect.Field]) -> dict[str, str]:
    """Key path of every key that stands in a section."""
    return {
        inner.encode_name: f"{name}.{inner.encode_name}"
        for name, field in fields.items()
        if isinstance(field.type, inspect.StructType)
        for inner in field.type.fields
    }


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, inspect.FloatType):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(kind, inspect.LiteralType):
        return any(value == item and type(value) is type(item) for item in kind.values)
    # A plug-in's own kinds are left to msgspec.
    known = (inspect.StrType, inspect.DictType, inspect.ListType, inspect.VarTupleType)
    return value is not None and not isinstance(kind, known)


def _typed(text: EnvText, kind: inspect.Type) -> Any:
    """The value of that type that the text stands for, or None."""
    compact = text.strip()
    if isinstance(kind, inspect.BoolType):
        return True if compact.lower() in _TRUE else False if compact.lower() in _FALSE else None
    if isinstance(kind, inspect.LiteralType):
        return next((item for item in kind.values if str(item) == compact), None)
    if isinstance(kind, inspect.IntType):
        return int(compact) if re.fullmatch(r"[-+]?\d{1,4000}", compact, re.ASCII) else None
    if isinstance(kind, inspect.FloatType):
        number = float(compact) if _NUMBER.fullmatch(compact) else math.inf
        return number if math.isfinite(number) else None
    return str(text) if _fits(text, kind) else None


def _in_bounds(value: Any, kind: inspect.Type) -> bool:
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return True
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    )


def _retyped(text: EnvText) -> Any:
    """A number or true or false where the text is exactly one, else the text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(0|[1-9]\d{0,4000})", text, re.ASCII):
        return int(text)
    if _NUMBER.fullmatch(text) and not re.match(r"[-+]?0\d", text) and math.isfinite(float(text)):
        return float(text)
    return str(text)


def _plain(value: Any) -> Any:
    if isinstance(value, EnvText):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        if _KEY_VALUE.search(value):
            return "text that looks like a secret"
        return repr(str(value) if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…")
    if isinstance(value, int | float):
        return f"the number {value}" if isinstance(value, float) or abs(value) < 10**20 else "a huge number"
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else repr(value)


def _quotes_hint(value: Any, kind: inspect.Type) -> str:
    if isinstance(kind, inspect.StrType) and isinstance(value, int | float) and not isinstance(value, bool):
        return "; put it in quotes"
    if isinstance(kind, inspect.IntType | inspect.FloatType) and isinstance(value, str) and _NUMBER.fullmatch(value):
        return "; take the quotes off"
    if isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(value, str):
        return "; put it in square brackets"
    return ""


def _exponent_hint(written: str) -> str:
    return f"YAML reads {written} as text; write {float(written):.15g}, or put it in quotes for text"
