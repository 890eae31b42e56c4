"""What of which input is to be read, as a value that settings can be checked against before any file is opened."""

from typing import Literal

import msgspec

__all__ = ["InputSettings", "OnDuplicate"]

OnDuplicate = Literal["error", "first", "suffix"]


class InputSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to read and how.

    Attributes:
        paths: Input files in order; ``-`` is standard input.
        prompt_template: Jinja template that makes the message of a line's fields; the line's form does not count then.
        system_template: Jinja template of the system prompt, for lines without ``system``.
        id_field: Field that holds the id; None for ``id`` or ``custom_id``, and a digest where there is neither.
        on_duplicate: What a second prompt with an id is: a fault, passed over, or renamed ``id-2``, ``id-3`` ….
        limit: How many prompts and faulty lines from the start, None for all.
        sample: How many of these, drawn at random, None for all.
        seed: Picks the sample; the same seed over the same input picks the same.
    """

    paths: tuple[str, ...]
    prompt_template: str | None = None
    system_template: str | None = None
    id_field: str | None = None
    on_duplicate: OnDuplicate = "error"
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
