"""The ordinary answers of a results file, read without making objects of what resuming need not know.

A line that msgspec reads as one of the structs below is valid JSON as a whole: what it skips it checks as well, but
for UTF-8, which is checked here. Whatever is odd about a line makes it none, and ``judge`` looks at it instead.
"""

from binascii import unhexlify
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from batchchat.records import PromptId
from batchchat.results.lines import Form
from batchchat.results.stored import fingerprint_value

__all__ = ["read_answers", "reads_quickly"]

_MOST_BITS = 64
_NULL = msgspec.Raw(b"null")


class _Flat(msgspec.Struct, gc=False):
    """A flat line; ``custom_id`` would make it a line of the other form."""

    id: PromptId
    response: msgspec.Raw
    error: None = None
    fingerprint: str | None = None
    custom_id: msgspec.UnsetType = msgspec.UNSET


class _Status(msgspec.Struct, gc=False):
    status_code: Literal[200] = 200


class _Ours(msgspec.Struct, gc=False):
    id: PromptId
    fingerprint: str | None = None


class _Batch(msgspec.Struct, gc=False):
    """A line of the batch form that batchchat wrote; others go by their ``custom_id``."""

    custom_id: str
    response: _Status
    batchchat: _Ours
    error: None = None


_read_flat: Callable[[bytes], _Flat] = msgspec.json.Decoder(_Flat).decode
_read_batch: Callable[[bytes], _Batch] = msgspec.json.Decoder(_Batch).decode


def read_answers(lines: Iterable[bytes], form: Form) -> list[tuple[PromptId, bytes]]:
    """Id and ``fingerprint_value`` (8 bytes) of each line, up to the first that is no ordinary answer of this form."""
    found: list[tuple[PromptId, bytes]] = []
    add, flat = found.append, form == "flat"
    try:
        for line in lines:
            if not line.isascii():
                line.decode()
            if flat:
                answer: _Flat | _Ours = (read := _read_flat(line))
                if read.response == _NULL:
                    break
            else:
                answer = _read_batch(line).batchchat
            id = answer.id
            if not id if isinstance(id, str) else id.bit_length() > _MOST_BITS:
                break
            fingerprint = answer.fingerprint
            if fingerprint is not None and len(fingerprint) == 16:
                add((id, unhexlify(fingerprint)))
            else:
                add((id, fingerprint_value(fingerprint).to_bytes(8, "big")))
    except (ValueError, RecursionError):  # invalid UTF-8, or not what the structs expect
        pass
    return found


def reads_quickly(line: bytes) -> bool:
    """Whether ``read_answers`` takes the line for an answer of either form."""
    return any(read_answers((line,), form) for form in ("flat", "openai-batch"))
