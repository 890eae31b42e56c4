"""The forms by name: how a line of each is known and read, and which of them hold what."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from batchchat.compress import compression_of
from batchchat.forms.anthropic import read_anthropic_line
from batchchat.forms.bedrock import read_bedrock_line
from batchchat.forms.openai_batch import read_batch_line, read_mistral_line
from batchchat.forms.openai_results import check_result, read_openai_result
from batchchat.forms.service_results import read_anthropic_result, read_bedrock_result
from batchchat.results import parse_stored

__all__ = [
    "HOLDERS",
    "READ_FORMS",
    "SERVICE_FORMS",
    "TABLE_FORMS",
    "WRITE_FORMS",
    "Kind",
    "LineForm",
    "form_of_path",
    "line_form",
]

Kind = Literal["prompts", "results"]
Tell = Callable[[str, str], None]

READ_FORMS = ("flat", "openai-batch", "csv", "tsv", "parquet", "anthropic", "mistral", "bedrock")
WRITE_FORMS = ("flat", "prompts", "openai-batch", "csv", "tsv", "parquet", "anthropic", "mistral", "bedrock",
               "bedrock-converse")  # fmt: skip
TABLE_FORMS = frozenset(("csv", "tsv", "parquet"))
# What lines of a service's form are called in messages.
HOLDERS = {
    "openai-batch": "OpenAI batch lines",
    "anthropic": "Anthropic batch lines",
    "mistral": "Mistral batch lines",
    "bedrock": "Bedrock batch lines",
    "bedrock-converse": "Bedrock batch lines",
}
SERVICE_FORMS = frozenset(HOLDERS)


class LineForm(NamedTuple):
    """A form of JSON Lines.

    Attributes:
        read: Gives the flat line; raises ValueError where it is none.
    """

    name: str
    kind: Kind
    read: Callable[[dict[str, Any], Tell], dict[str, Any]]


def _as_it_is(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    return obj


_FLAT = LineForm("flat", "prompts", _as_it_is)
_FLAT_RESULTS = LineForm("flat", "results", lambda obj, tell: check_result(obj))
_BATCH = LineForm("openai-batch", "prompts", read_batch_line)
_BATCH_RESULTS = LineForm("openai-batch", "results", lambda obj, tell: read_openai_result(obj))
_MISTRAL_RESULTS = LineForm("mistral", "results", lambda obj, tell: read_openai_result(obj))
_MISTRAL = LineForm("mistral", "prompts", read_mistral_line)
_ANTHROPIC = LineForm("anthropic", "prompts", read_anthropic_line)
_ANTHROPIC_RESULTS = LineForm("anthropic", "results", read_anthropic_result)
_BEDROCK = LineForm("bedrock", "prompts", read_bedrock_line)
_BEDROCK_RESULTS = LineForm("bedrock", "results", read_bedrock_result)


def form_of_path(path: str) -> str | None:
    """The form that a name's ending tells, None for JSON Lines of whatever form."""
    name = path.lower()
    compression = compression_of(name)
    if compression is not None:
        name = name.removesuffix(f".{compression}")
    return next((form for form in TABLE_FORMS if name.endswith(f".{form}")), None)


def line_form(form: str | None, first: dict[str, Any] | None, *, is_results_name: bool) -> LineForm:
    """The form of a file's lines.

    Args:
        form: Its name where the user gave one.
        first: The first line that is an object, None where there is none.
        is_results_name: Whether the file's name is that of results, which decides for an empty file.
    """
    obj = first or {}
    if form is None:
        form = _recognised(obj)
    if form == "openai-batch":
        return _BATCH_RESULTS if "response" in obj or (first is None and is_results_name) else _BATCH
    if form == "mistral":
        return _MISTRAL_RESULTS if "response" in obj else _MISTRAL
    if form == "anthropic":
        return _ANTHROPIC_RESULTS if "result" in obj else _ANTHROPIC
    if form == "bedrock":
        return _BEDROCK_RESULTS if obj.keys() & {"modelOutput", "error"} else _BEDROCK
    if first is None:
        return _FLAT_RESULTS if is_results_name else _FLAT
    is_result = "error" in obj and parse_stored(obj) is not None and "custom_id" not in obj
    return _FLAT_RESULTS if is_result else _FLAT


def _recognised(obj: dict[str, Any]) -> str:
    if "modelInput" in obj:
        return "bedrock"
    if "custom_id" in obj:
        if "response" in obj or isinstance(obj.get("body"), dict):
            is_mistral = "response" not in obj and "url" not in obj and "method" not in obj
            return "mistral" if is_mistral else "openai-batch"
        if isinstance(obj.get("params"), dict) and "messages" in obj["params"]:
            return "anthropic"
        if isinstance(obj.get("result"), dict) and "type" in obj["result"]:
            return "anthropic"
    return "flat"
