"""The prompts that one input object makes: its templates, its examples, its attachments and its variants."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from batchchat.attachment_fields import AttachmentFields
from batchchat.examples import example_messages, read_examples, with_examples
from batchchat.expansion import Expansion, Variant
from batchchat.failed_lines import failed_variant
from batchchat.input_lines import Ask, read_ask
from batchchat.input_settings import InputSettings, TemplateFile, TemplateSource
from batchchat.jsonl import dump_canonical
from batchchat.records import Prompt, PromptId

if TYPE_CHECKING:
    from batchchat.templates import Template, TemplateLibrary

__all__ = ["LinePrompts", "Records", "auto_id"]

Records = Callable[[str], Iterator[tuple[int, dict[str, Any] | str]]]


class LinePrompts:
    """Knows how a job turns an input object into prompts.

    Args:
        records: Reads a file of examples.

    Attributes:
        expansion: The variants of a line; false where a line makes one prompt under its own id.
        checked: Whether the whole input was found to be right, so that a file that went away since is the trouble of
            its prompt and not of the run.
        dresses: Whether there is more to a prompt than its line and its templates: examples, attachments.

    Raises:
        ConfigError: A template is none, or the variants cannot be made.
        PromptFileError: The file of examples cannot be used.
    """

    def __init__(self, settings: InputSettings, records: Records) -> None:
        self._settings = settings
        self.expansion = Expansion(tuple(settings.templates), settings.matrix, settings.samples)
        sources: dict[str | None, TemplateSource | None] = {None: settings.prompt_template}
        if settings.templates:
            sources = dict(settings.templates.items())
        system = settings.system_template
        library = _library(settings) if system is not None or any(sources.values()) else None
        self.system = _compiled(library, system, "system template")
        self._templates = {
            name: _compiled(library, source, "prompt template" if name is None else f"prompt template {name!r}")
            for name, source in sources.items()
        }
        self.prompt = self._templates.get(None)
        self._examples = self._read_examples(records)
        self._attachments = None
        if settings.images or settings.files:
            self._attachments = AttachmentFields(
                settings.images,
                settings.files,
                detail=settings.image_detail,
                root=settings.file_root,
                max_bytes=settings.max_file_bytes,
            )
        self.checked = False
        self.dresses = self._examples is not None or self._attachments is not None

    def _read_examples(self, records: Records) -> dict[str | None, list[dict[str, Any]]] | None:
        """The messages of the examples with each template."""
        file = self._settings.examples
        if file is None:
            return None
        examples = read_examples(file, records(file.path))
        return {name: example_messages(file.path, examples, template) for name, template in self._templates.items()}

    def with_attachments(self, ask: Ask, fields: dict[str, Any], path: str) -> Ask:
        """What is asked, with the images and files that the line names.

        Raises:
            ValueError: See ``AttachmentFields.find``.
        """
        if self._attachments is None:
            return ask
        return ask._replace(attachments=self._attachments.find(fields, path, checked=self.checked))

    def with_examples(self, ask: Ask, template: str | None = None) -> Ask:
        """What is asked, with the examples before it; the id of a line without one does not hang on them."""
        return ask if self._examples is None else with_examples(ask, self._examples[template])

    def asked(self, fields: dict[str, Any], variants: Sequence[Variant], path: str) -> dict[str | None, Ask]:
        """What the object asks with each template that the variants name, without examples.

        Raises:
            ValueError: See ``read_ask`` and ``with_attachments``.
        """
        names = dict.fromkeys(variant.template for variant in variants)
        found = {name: read_ask(fields, self._templates[name], self.system) for name in names}
        if self._attachments is None:
            return found
        attachments = self._attachments.find(fields, path, checked=self.checked)
        return {name: ask._replace(attachments=attachments) for name, ask in found.items()}

    def failed_part(self, fields: Mapping[str, Any]) -> Variant | None:
        """The variant that a line of an errors file tells of; None where it tells of none, or is no such line.

        Raises:
            ValueError: The job has no such variant.
        """
        told = failed_variant(fields)
        return None if told is None else self.expansion.matching(told)

    def row_digest(self, fields: dict[str, Any], asked: Mapping[str | None, Ask]) -> str:
        """The id of a line that brings none and makes several prompts."""
        ask = asked.get(None)
        if ask is not None:
            return auto_id(ask)
        # With several templates it is the line that is asked about, whatever they make of it.
        return f"p-{blake2b(dump_canonical({'fields': fields}), digest_size=8).hexdigest()}"

    def prompt_of(self, ask: Ask, variant: Variant, row_id: PromptId, **place: Any) -> Prompt:
        """The prompt of one variant.

        Args:
            place: Index, line number and line; see ``Ask.to_prompt``.
        """
        params = {**ask.params, **variant.params}
        if variant.sample is not None and variant.sample > 1:
            seed = params.get("seed", self._settings.seed_param)
            # A service that is given one seed gives one answer.
            if isinstance(seed, int | float) and not isinstance(seed, bool):
                params["seed"] = seed + variant.sample - 1
        varied = ask._replace(model=variant.model or ask.model, params=params)
        return varied.to_prompt(f"{row_id}{variant.suffix}", variant=variant.told(row_id), **place)


def auto_id(ask: Ask) -> str:
    """The id of a prompt that brings none: ``p-`` and 16 hex digits of BLAKE2b over what is asked."""
    attached = [[attachment.kind, attachment.given] for attachment in ask.attachments]
    parts = (
        ("turns", ask.turns),
        ("system", ask.system),
        ("model", ask.model),
        ("params", ask.params),
        ("attachments", attached),
    )
    asked = {"messages": ask.messages} | {name: value for name, value in parts if value}
    return f"p-{blake2b(dump_canonical(asked), digest_size=8).hexdigest()}"


def _library(settings: InputSettings) -> "TemplateLibrary":
    # Jinja takes 50 ms to import, which a run without templates need not wait for.
    from batchchat.templates import TemplateLibrary

    return TemplateLibrary(settings.template_folder)


def _compiled(library: "TemplateLibrary | None", source: TemplateSource | None, what: str) -> "Template | None":
    if library is None or source is None:
        return None
    return (
        library.read(source.file, what=what) if isinstance(source, TemplateFile) else library.compile(source, what=what)
    )
