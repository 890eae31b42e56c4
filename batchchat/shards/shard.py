"""What one worker is given to do at a time."""

from typing import Self

import msgspec

from batchchat.errors import BatchchatError
from batchchat.records import Prompt, PromptId
from batchchat.stopping import StopReason

__all__ = ["Asked", "Shard", "ShardReport", "Stretch", "Trouble"]


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One prompt of a shard.

    Attributes:
        line: 1-based line (row) in its file.
        id, index: Of the prompt.
        fingerprint: Of what is asked; a worker that makes another one of the line sees another input.
        row: Id of its line, which may make several prompts.
    """

    line: int
    id: PromptId
    index: int
    fingerprint: str
    row: PromptId


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Where the lines of a shard are.

    Attributes:
        path: Absolute path of the file, or URL of the object, which is not compressed: JSON Lines or Parquet.
        offset: Where ``first_line`` begins, in bytes; 0 for Parquet, which knows where its rows are.
        first_line: 1-based.
        size_bytes, modified_ns: The file as it was when it was cut.
        etag: So of an object; None for a file.
    """

    path: str
    offset: int
    first_line: int
    size_bytes: int
    modified_ns: int
    etag: str | None = None


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Some prompts that follow each other in the input.

    Attributes:
        number: From 1.
        asked: What there is to do.
        stretch: Where their lines are; None where ``prompts`` has them, as of an input that cannot be sought in.
        chats: Whether some belong to conversations, which others of them, or of other shards, go on with.
    """

    number: int
    asked: tuple[Asked, ...]
    stretch: Stretch | None
    prompts: tuple[Prompt, ...] = ()
    chats: bool = False


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it travels: its sentence, and the exit code that it stands for."""

    sentence: str
    exit_code: int

    @classmethod
    def of(cls, error: BatchchatError) -> Self:
        """What travels of an error."""
        return cls(sentence=str(error), exit_code=error.exit_code)


class ShardReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells of a shard that it is done with.

    Attributes:
        whole: Whether every prompt came to its end, so that there is a part; else the run is stopping.
        trouble: Why it cannot be asked.
        stop: Why the worker ended the run, where it did; it tells the desk as well, which may take longer.
    """

    number: int
    whole: bool
    trouble: Trouble | None = None
    stop: StopReason | None = None
