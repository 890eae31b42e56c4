"""What stands in the files of a run, whatever their form, and what is wrong with it."""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["Answers", "read_answers", "read_objects"]


@dataclass
class Answers:
    """The whole lines of a results file.

    Attributes:
        texts: The answers of each id, in the order of the file; one each, if all is well.
        faults: What is not as it should be, a sentence each.
        torn: Bytes after the last whole line or member.
    """

    texts: dict[Any, list[str | None]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    torn: int = 0

    @property
    def duplicates(self) -> int:
        """Lines beyond the first of each id."""
        return sum(len(texts) - 1 for texts in self.texts.values())


def read_answers(path: Path) -> Answers:
    """The answers in a results file, ``flat`` or ``openai-batch``, plain, ``.gz`` or ``.zst``; none if there is none.

    A tail that is torn is counted and left out: a run that was killed may leave one, the next run takes it away.
    """
    answers = Answers()
    data, answers.torn = _plain(path)
    whole = data.rfind(b"\n") + 1
    answers.torn += len(data) - whole
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
        try:
            told = json.loads(line)
            key, text = _answer(told)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            answers.faults.append(f"{path.name}:{number}: {type(error).__name__} {error}: {line[:80]!r}")
            continue
        answers.texts.setdefault(key, []).append(text)
    return answers


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of whole lines, such as an errors file; none if there is none."""
    data, _ = _plain(path)
    return [json.loads(line) for line in data.split(b"\n") if line]


def _answer(told: dict[str, Any]) -> tuple[Any, str | None]:
    if "custom_id" in told:
        if told["error"] is not None or told["response"]["status_code"] != 200:
            raise ValueError("a failure stands in the results")
        return told["custom_id"], told["response"]["body"]["choices"][0]["message"]["content"]
    if told["error"] is not None:
        raise ValueError("a failure stands in the results")
    return told["id"], told["response"]


def _plain(path: Path) -> tuple[bytes, int]:
    """The uncompressed bytes of whole members, and how many (compressed) bytes follow them."""
    data = path.read_bytes() if path.is_file() else b""
    if path.suffix == ".gz":
        return _members(data, _gzip_member)
    if path.suffix == ".zst":
        return _members(data, _zstd_member)
    return data, 0


def _members(data: bytes, read: Any) -> tuple[bytes, int]:
    parts: list[bytes] = []
    while data:
        try:
            part, data_left = read(data)
        except (OSError, EOFError, zstandard.ZstdError, ValueError):
            break
        parts.append(part)
        data = data_left
    return b"".join(parts), len(data)


def _gzip_member(data: bytes) -> tuple[bytes, bytes]:
    reader = zlib.decompressobj(wbits=31)
    try:
        part = reader.decompress(data)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not reader.eof:
        raise EOFError
    return part, reader.unused_data


def _zstd_member(data: bytes) -> tuple[bytes, bytes]:
    reader = zstandard.ZstdDecompressor().decompressobj()
    part = reader.decompress(data)
    if not reader.eof:
        raise EOFError
    return part, reader.unused_data
