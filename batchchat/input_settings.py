"""What of which input is to be read, as a value that settings can be checked against before any file is opened."""

from typing import Any, Literal

import msgspec

__all__ = ["ExamplesFile", "ImageDetail", "InputSettings", "OnDuplicate", "TemplateFile", "TemplateSource"]

OnDuplicate = Literal["error", "first", "suffix"]
ImageDetail = Literal["auto", "low", "high"]


class TemplateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template that stands in a file of its own: ``file`` is its path inside the job file's folder."""

    file: str


TemplateSource = str | TemplateFile


class ExamplesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answered examples that go before every prompt.

    Attributes:
        path: JSON Lines, CSV or Parquet, from the working directory.
        answer: Field that holds an example's answer.
        limit: Only the first so many.
    """

    path: str
    answer: str = "response"
    limit: int | None = None


class InputSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to read and how.

    Attributes:
        paths: Input files in order; ``-`` is standard input.
        prompt_template: Jinja template that makes the message of a line's fields; the line's form does not count then.
        system_template: Jinja template of the system prompt, for lines without ``system``.
        templates: Prompt templates by name, in the place of ``prompt_template``; a line makes a prompt with each.
        template_folder: Where template files are looked up; None where there is no job file.
        examples: Answered examples that go before every prompt.
        images, files: Fields that hold paths or addresses of what goes with the prompt.
        image_detail: How closely a service is to look at images, None for its own choice.
        file_root: Folder that paths must not lead out of; None for the input file's own.
        max_file_bytes: Largest image or file, in bytes.
        samples: How often each prompt is asked.
        matrix: Model and sampling parameters by name, each with the values to ask with.
        seed_param: The job's own sampling parameter ``seed``; later samples count on from it.
        id_field: Field that holds the id; None for ``id`` or ``custom_id``, and a digest where there is neither.
        on_duplicate: What a second prompt with an id is: a fault, passed over, or renamed ``id-2``, ``id-3`` ….
        limit: How many lines from the start, faulty ones included, None for all.
        sample: How many of these, drawn at random, None for all.
        seed: Picks the sample; the same seed over the same input picks the same.
    """

    paths: tuple[str, ...]
    prompt_template: TemplateSource | None = None
    system_template: TemplateSource | None = None
    templates: dict[str, TemplateSource] = {}
    template_folder: str | None = None
    examples: ExamplesFile | None = None
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    image_detail: ImageDetail | None = None
    file_root: str | None = None
    max_file_bytes: int = 20 << 20
    samples: int = 1
    matrix: dict[str, list[Any]] = {}
    seed_param: Any = None
    id_field: str | None = None
    on_duplicate: OnDuplicate = "error"
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
