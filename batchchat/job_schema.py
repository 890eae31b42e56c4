"""JSON Schema of the job file, and the tables of settings, both made of the settings structs."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from batchchat.durations import render_duration
from batchchat.errors import UnknownProviderError
from batchchat.job_config import JobConfig
from batchchat.job_forms import Seconds
from batchchat.providers import installed_providers, load_provider
from batchchat.scalars import describe_type
from batchchat.sections import Form, public_fields

__all__ = ["Setting", "attribute_docs", "job_json_schema", "list_settings", "summary_line"]

_ATTRIBUTE = re.compile(r"\s+([\w, ]+): (.*)")
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_SECONDS = inspect.type_info(Seconds)


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a settings struct: ``type`` in words, ``default`` as a job file writes it (None: not set)."""

    key: str
    type: str
    default: Any
    required: bool
    description: str


def job_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a job file, with the settings of every installed provider."""
    schema = _schema_of(inspect.type_info(JobConfig))
    schema["properties"]["provider"] = _provider_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Job of batchchat", **schema}


def list_settings(struct_type: type[msgspec.Struct]) -> Iterator[Setting]:
    """The keys that a job may set, in the struct's order; those of sections inside it as ``section.key``."""
    docs = attribute_docs(struct_type)
    for name, field in _fields(struct_type).items():
        if isinstance(field.type, inspect.StructType):
            for inner in list_settings(field.type.cls):
                yield msgspec.structs.replace(inner, key=f"{name}.{inner.key}")
            continue
        yield Setting(
            key=name,
            type=_words(field.type),
            default=_default(field),
            required=field.required,
            description=docs.get(field.name, ""),
        )


def attribute_docs(struct_type: type[Any]) -> dict[str, str]:
    """Text of each attribute in the ``Attributes:`` section of a class's docstring."""
    docs: dict[str, str] = {}
    names: list[str] = []
    section = (struct_type.__doc__ or "").partition("Attributes:\n")[2]
    indent = len(section) - len(section.lstrip())
    for line in section.splitlines():
        if not line.strip():
            break
        match = _ATTRIBUTE.fullmatch(line)
        if match is not None and len(line) - len(line.lstrip()) == indent:
            names = [name.strip() for name in match[1].split(",")]
            docs |= dict.fromkeys(names, match[2].strip())
        else:
            docs |= {name: f"{docs[name]} {line.strip()}" for name in names}
    return docs


def summary_line(described: type[Any]) -> str:
    """First line of a class's docstring."""
    return (described.__doc__ or "").strip().partition("\n")[0]


def _fields(struct_type: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    kind = inspect.type_info(struct_type)
    return public_fields(kind) if isinstance(kind, inspect.StructType) else {}


def _provider_schema() -> dict[str, Any]:
    kinds = list(installed_providers())
    named = {"properties": {"name": {"enum": kinds}}, "required": ["name"]}
    return {
        "description": attribute_docs(JobConfig)["provider"],
        "type": "object",
        "properties": {"name": {"anyOf": [{"enum": kinds}, _VARIABLE]}},
        "oneOf": [*map(_settings_schema, kinds), {"title": "named by an option or a variable", "not": named}],
    }


def _settings_schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    try:
        provider = load_provider(kind)
        schema = _schema_of(inspect.type_info(provider.Config)) | {"description": summary_line(provider)}
    except UnknownProviderError:
        pass
    except Exception:  # a plug-in's struct may name types that are not there; 'batchchat providers' tells
        schema = {"type": "object", "properties": {}}
    properties = {"name": {"const": kind}} | schema["properties"]
    return schema | {"title": kind, "properties": properties, "required": ["name", *schema.get("required", ())]}


def _schema_of(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.Metadata):
        if "off" in (kind.extra or {}):
            return _any_of([{"enum": [False, "off", True, "on"]}, _VARIABLE, _schema_of(kind.type)])
        form = (kind.extra or {}).get("form")
        return _form_schema(form) if isinstance(form, Form) else _schema_of(kind.type) | (kind.extra_json_schema or {})
    if isinstance(kind, inspect.StructType):
        return _object_schema(kind)
    if isinstance(kind, inspect.UnionType):
        return _any_of([_schema_of(member) for member in kind.types])
    if isinstance(kind, inspect.DictType):
        return {"type": "object", "additionalProperties": _schema_of(kind.value_type)}
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return {"type": "array", "items": _schema_of(kind.item_type)}
    if isinstance(kind, inspect.StrType):
        return {"type": "string"} | ({"minLength": kind.min_length} if kind.min_length else {})
    if isinstance(kind, inspect.NoneType):
        return {"type": "null"}
    if isinstance(kind, inspect.LiteralType):
        return _any_of([{"enum": list(kind.values)}, _VARIABLE])
    if isinstance(kind, inspect.BoolType):
        return _any_of([{"type": "boolean"}, _VARIABLE])
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _any_of([_number_schema(kind), _VARIABLE])
    return {}


def _object_schema(kind: inspect.StructType) -> dict[str, Any]:
    docs = attribute_docs(kind.cls)
    properties = {}
    fields = public_fields(kind)
    for name, field in fields.items():
        schema = _schema_of(field.type)
        if field.name in docs:
            schema = {"description": docs[field.name].replace("``", "`")} | schema
        if (default := _default(field)) is not None:
            schema |= {"default": default}
        properties[name] = schema
    required = [name for name, field in fields.items() if field.required]
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": required} if required else {}
    )


def _number_schema(kind: inspect.IntType | inspect.FloatType) -> dict[str, Any]:
    bounds = {"minimum": kind.ge, "exclusiveMinimum": kind.gt, "maximum": kind.le, "exclusiveMaximum": kind.lt}
    number = "integer" if isinstance(kind, inspect.IntType) else "number"
    return {"type": number} | {name: bound for name, bound in bounds.items() if bound is not None}


def _form_schema(form: Form) -> dict[str, Any]:
    return _any_of([form.schema, {"type": "array", "items": form.schema}]) if form.many else dict(form.schema)


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema that holds where any of these does, without nesting and repetition."""
    flat: list[dict[str, Any]] = []
    for schema in schemas:
        flat += [part for part in schema.get("anyOf", [schema]) if part not in flat]
    return {"anyOf": flat}


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_words(member) for member in kind.types if not isinstance(member, inspect.NoneType))
    form = (kind.extra or {}).get("form") if isinstance(kind, inspect.Metadata) else None
    return form.words if isinstance(form, Form) else describe_type(kind)


def _default(field: inspect.Field) -> Any:
    """The default as a job file writes it; None for one that is empty or not set."""
    default = None if field.default is msgspec.NODEFAULT else field.default
    if isinstance(default, msgspec.Struct) or default in ((), None):
        return None
    if field.type == _SECONDS:
        return render_duration(default) if default else 0
    return default
