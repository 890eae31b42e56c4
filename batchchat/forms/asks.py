"""Prompts between forms: what a flat line asks for with its id, and the flat line that asks for something."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from batchchat.failed_lines import failed_variant, unwrap_failure
from batchchat.forms.losses import Losses
from batchchat.ids import IdTable
from batchchat.input_lines import Ask, read_ask, take_id
from batchchat.jsonl import dump_line
from batchchat.prompts import auto_id
from batchchat.records import PromptId
from batchchat.templates import TemplateLibrary

__all__ = ["AskSettings", "Asked", "Asker", "flat_line", "kept_line", "restored_line"]

# What batchchat keeps of a line in a form that has no place for it.
_OWN_KEY = "batchchat"
_SETTINGS = frozenset(("system", "model", "params"))
_NULL_IS_ABSENT = frozenset(("messages", "prompt", "turns", "chat_id"))


class AskSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How lines become requests.

    Attributes:
        prompt: Jinja template of the prompt, None where lines bring theirs.
        system: Jinja template of the system prompt.
        id_field: Field that holds the id.
        model: Model of lines that name none.
        max_tokens: Length of answers for lines that name none, where a form needs one.
        keep_fields: Keep what the form has no place for under a key of its own.
    """

    prompt: str | None = None
    system: str | None = None
    id_field: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    keep_fields: bool = False


class Asked(NamedTuple):
    """One request in the chat form.

    Attributes:
        id: Text, unique in the file.
        messages: The system prompt, if any, first.
        params: Sampling parameters in the words of OpenAI's chat completions.
    """

    id: str
    messages: list[dict[str, Any]]
    model: str | None
    params: dict[str, Any]


class Asker:
    """Lines to requests; tells what a request has no place for.

    Raises:
        ConfigError: A template is none.
    """

    def __init__(self, settings: AskSettings, form: str, holder: str, losses: Losses) -> None:
        self._settings, self._form, self._holder, self._losses = settings, form, holder, losses
        compile_template = TemplateLibrary().compile
        self._prompt = None if settings.prompt is None else compile_template(settings.prompt, what="prompt template")
        self._system = None if settings.system is None else compile_template(settings.system, what="system template")
        self._seen = IdTable()

    def asked(self, line: Mapping[str, Any]) -> Asked:
        """What a line asks for.

        Raises:
            ValueError: It asks for nothing that one request could hold, or its id has been seen.
        """
        fields, variant = dict(line), None
        if "error" in line:
            variant, fields = failed_variant(line), unwrap_failure(fields, self._settings.id_field)
        given, rest = take_id(fields, self._settings.id_field)
        ask = read_ask(fields, self._prompt, self._system)
        if variant is not None:
            given, ask = line["id"], _varied(ask, variant)
        if len(ask.turns) > 1:
            raise ValueError(
                f"found {len(ask.turns)} turns, expected one question; a batch line has no answers between"
            )
        messages = [*ask.messages, *({"role": "user", "content": turn} for turn in ask.turns)]
        if ask.system is not None:
            messages.insert(0, {"role": "system", "content": ask.system})
        prompt_id = self._id(given, ask)
        if not self._settings.keep_fields:
            self._tell_losses(rest, given)
        # A Bedrock job names the model, its lines cannot.
        model = None if self._form.startswith("bedrock") else self._settings.model
        return Asked(prompt_id, messages, ask.model or model, ask.params)

    def _id(self, given: PromptId | None, ask: Ask) -> str:
        digest = auto_id(ask) if given is None else str(given)
        if self._seen.add(digest, self._losses.line_number):
            return digest
        if given is not None:
            raise ValueError(f"duplicate id {digest!r} (first at line {self._seen.get(digest)}), expected each id once")
        number = 2
        while not self._seen.add(f"{digest}-{number}", self._losses.line_number):
            number += 1
        return f"{digest}-{number}"

    def _tell_losses(self, rest: Mapping[str, Any], given: PromptId | None) -> None:
        if isinstance(given, int):
            self._losses.tell(self._form, "an integer as id", f"which {self._holder} hold as text")
        asked = self._asked_field(rest)
        for name, value in rest.items():
            if name in _SETTINGS or name == asked or (name == _OWN_KEY and "body" in rest):
                continue
            if not (asked == "body" and name in ("method", "url")) and not (value is None and name in _NULL_IS_ABSENT):
                self._losses.tell(self._form, repr(name), f"which {self._holder} cannot hold")

    def _asked_field(self, rest: Mapping[str, Any]) -> str | None:
        if self._prompt is not None:
            return None
        return next((name for name in ("body", "messages", "prompt", "turns") if rest.get(name) is not None), None)


def _varied(ask: Ask, variant: Mapping[str, Any]) -> Ask:
    """What one of several prompts of a line asks."""
    if "template" in variant:
        raise ValueError(
            f"found the failure of the template {variant['template']!r}, expected one without; "
            "only a run of its job knows the template"
        )
    params, sample = {**ask.params, **variant.get("params", {})}, variant.get("sample", 1)
    if type(params.get("seed")) is int:
        params["seed"] += sample - 1
    return ask._replace(model=variant.get("model") or ask.model, params=params)


def flat_line(
    prompt_id: PromptId, messages: list[dict[str, Any]], model: str | None, params: dict[str, Any]
) -> dict[str, Any]:
    """The shortest flat line that asks for this, its keys always in the same order."""
    line: dict[str, Any] = {"id": prompt_id}
    texts = [message.get("content") for message in messages]
    roles = [message.get("role") for message in messages]
    plain = all(len(message) == 2 and isinstance(message.get("content"), str) for message in messages)
    if plain and roles in (["user"], ["system", "user"]) and all(text.strip() for text in texts if text is not None):
        line["prompt"] = texts[-1]
        if len(texts) == 2:
            line["system"] = texts[0]
    else:
        line["messages"] = messages
    if model:
        line["model"] = model
    if params:
        line["params"] = params
    return line


def kept_line(line: Mapping[str, Any], read_back: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to keep under the own key so that ``restored_line`` gives ``line`` again; None for nothing.

    Args:
        read_back: The flat line that the written request is read as.
    """
    wanted = dump_line(line)
    if dump_line(read_back) == wanted:
        return None
    # Null stands for what the request holds itself.
    lean = {name: None if name in read_back and read_back[name] == value else value for name, value in line.items()}
    kept = {_OWN_KEY: {"line": lean}}
    if dump_line(restored_line(kept, read_back)) == wanted:
        return kept
    return {_OWN_KEY: {"line": dict(line), "whole": True}}


def restored_line(obj: Mapping[str, Any], read_back: Mapping[str, Any]) -> dict[str, Any]:
    """The line that ``kept_line`` kept in ``obj``, or ``read_back`` where it kept nothing."""
    ours = obj.get(_OWN_KEY)
    kept = ours.get("line") if isinstance(ours, dict) else None
    if not isinstance(kept, dict):
        return dict(read_back)
    if isinstance(ours, dict) and ours.get("whole") is True:
        return dict(kept)
    return {name: read_back[name] if value is None and name in read_back else value for name, value in kept.items()}
