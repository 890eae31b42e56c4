"""What a job file writes in a form of its own about prompts: templates in files, examples, names of fields."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from batchchat.input_settings import ExamplesFile, TemplateSource
from batchchat.locations import EnvText
from batchchat.sections import Form

__all__ = ["Examples", "FieldNames", "TemplateText"]


def _template(value: Any) -> Any:
    """A template as it is, or ``{"file": …}``."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Mapping) and value.keys() == {"file"} and isinstance(value["file"], str) and value["file"]:
        return {"file": str(value["file"])}
    raise ValueError(f"expected a template, or {{file: PATH}} for one in a file of its own, found {value!r}")


def _examples(value: Any) -> dict[str, Any]:
    """A path, or a mapping with ``path``, ``answer`` and ``limit``."""
    settings = dict(value) if isinstance(value, Mapping) else {"path": value}
    path, answer, limit = settings.pop("path", None), settings.pop("answer", None), settings.pop("limit", None)
    if settings:
        raise ValueError(f"expected the keys path, answer and limit, found {next(iter(settings))!r}")
    if not isinstance(path, str) or not path or path == "-":
        raise ValueError(f"expected the path of a file with examples, found {path!r}")
    if answer is not None and (not isinstance(answer, str) or not answer):
        raise ValueError(f"expected the name of the field with the answer, found {answer!r}")
    if isinstance(limit, EnvText) and limit.isascii() and limit.isdigit():
        limit = int(limit)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"expected a limit of at least 1, found {limit!r}")
    return {"path": str(path), "answer": str(answer or "response"), "limit": limit}


def _field(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected the name of a field or a list of them, found {value!r}")
    return value


_FILE_SCHEMA = {
    "type": "object",
    "properties": {"file": {"type": "string", "minLength": 1}},
    "required": ["file"],
    "additionalProperties": False,
}
_TEMPLATE = Form(
    parse=_template,
    words="a template or {file: PATH}",
    schema={"anyOf": [{"type": "string", "minLength": 1}, _FILE_SCHEMA]},
)
_EXAMPLES = Form(
    parse=_examples,
    words="a path or a mapping",
    schema={
        "anyOf": [
            {"type": "string", "minLength": 1},
            {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "minLength": 1},
                    "answer": {"type": "string", "minLength": 1, "default": "response"},
                    "limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"\$\{"}]},
                },
                "required": ["path"],
                "additionalProperties": False,
            },
        ]
    },
)
_FIELDS = Form(parse=_field, words="a name or a list of them", many=True, schema={"type": "string", "minLength": 1})

TemplateText = Annotated[TemplateSource, Meta(extra={"form": _TEMPLATE})]
Examples = Annotated[ExamplesFile, Meta(extra={"form": _EXAMPLES})]
FieldNames = Annotated[list[str], Meta(extra={"form": _FIELDS})]
