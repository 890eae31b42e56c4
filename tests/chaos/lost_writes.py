"""What a disk may hold after the power went: all that was synced, and any part of what was not.

The model is harder than most file systems. Data of a file that was not synced may be there or not, block by block, cut
anywhere, or as zero bytes where only the size had come. A name that was made, replaced or removed counts as safe only
once its folder was synced; before that, names of a folder have changed up to any point, in their order. Names and data
know nothing of each other, so a rename may be there without the data of the file.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.disk_shim import Record

__all__ = ["Disk"]

_BLOCK = 512


@dataclass
class _File:
    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # offset and data, or size and None

    def now(self) -> bytes:
        return _applied(self.synced, self.pending)

    def after_power_loss(self, rng: random.Random) -> bytes:
        """One of the contents that the disk may hold."""
        now, how = self.now(), rng.randrange(5)
        if not self.pending or how == 0:
            return self.synced
        if how == 1:
            return now
        some = self.pending[: rng.randrange(len(self.pending) + 1)]
        content = _applied(self.synced, some)
        if how == 2:
            return content
        longer = content if len(content) > len(self.synced) else now
        grown = longer[len(self.synced) :]
        if how == 3:  # cut anywhere, the rest of its block is zero bytes
            cut = rng.randrange(len(grown) + 1)
            return self.synced[: len(longer)] + grown[:cut] + bytes(min(len(grown) - cut, rng.randrange(_BLOCK)))
        blocks = [grown[at : at + _BLOCK] for at in range(0, len(grown), _BLOCK)]
        return self.synced[: len(longer)] + b"".join(rng.choice([block, bytes(len(block))]) for block in blocks)


def _applied(content: bytes, changes: Sequence[tuple[int, bytes | None]]) -> bytes:
    data = bytearray(content)
    for number, written in changes:
        if written is None:
            del data[number:]
            data.extend(bytes(number - len(data)))
        else:
            data.extend(bytes(max(0, number - len(data))))
            data[number : number + len(written)] = written
    return bytes(data)


@dataclass
class Disk:
    """Files below one folder, as the disk and as the process see them.

    Attributes:
        names: What the process sees: path -> file; None for a folder.
        safe: What the disk has for sure.
        pending: Changes of names in each folder that were not synced, in their order.
    """

    names: dict[str, "_File | None"] = field(default_factory=dict)
    safe: dict[str, "_File | None"] = field(default_factory=dict)
    pending: dict[str, list[list[tuple[str, "_File | None", bool]]]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Disk":
        """A disk on which all that is there now is safe."""
        disk = cls()
        for path in folder.rglob("*"):
            disk.names[str(path)] = None if path.is_dir() else _File(path.read_bytes())
        disk.safe = dict(disk.names)
        return disk

    def apply(self, record: Record) -> None:
        """Takes in one change that a process made."""
        path = record.path
        if record.call in "OM":
            made = None if record.call == "M" else _File()
            self._rename(path, [(path, made, True)])
        elif record.call == "R":
            target = record.data.decode()
            self._rename(path, [(target, self.names[path], True), (path, None, False)])
        elif record.call == "U":
            self._rename(path, [(path, None, False)])
        elif record.call == "S":
            self._sync(path)
        elif (file := self.names.get(path)) is not None:
            file.pending.append((record.number, record.data if record.call == "W" else None))

    def _rename(self, path: str, changes: list[tuple[str, "_File | None", bool]]) -> None:
        _change(self.names, changes)
        self.pending.setdefault(os.path.dirname(path), []).append(changes)

    def _sync(self, path: str) -> None:
        file = self.names.get(path)
        if file is not None:
            file.synced, file.pending = file.now(), []
            return
        for changes in self.pending.pop(path, []):
            _change(self.safe, changes)

    def content(self, path: str) -> bytes:
        """What the process would read; empty where there is nothing."""
        file = self.names.get(path)
        return b"" if file is None else file.now()

    def lay_out(self, root: Path, folder: Path, rng: random.Random) -> None:
        """Makes ``folder`` what ``root`` may look like after a power loss now."""
        names = dict(self.safe)
        for changes in self.pending.values():
            for change in changes[: rng.randrange(len(changes) + 1)]:
                _change(names, change)
        for path, file in sorted(names.items()):
            target = folder / os.path.relpath(path, root)
            if any(str(parent) not in names for parent in Path(path).parents if root in parent.parents):
                continue  # its folder is not there
            if file is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.after_power_loss(rng))


def _change(names: dict[str, "_File | None"], changes: list[tuple[str, "_File | None", bool]]) -> None:
    for path, file, there in changes:
        if there:
            names[path] = file
        else:
            names.pop(path, None)
