"""Conversions for tests: files in, the command's exit, what it said."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.cli import main
from batchchat.jsonl import dump_line


def write_lines(path: Path, *lines: Any) -> Path:
    """A file of canonical JSON Lines; text stands as it is."""
    data = b"".join(line.encode() + b"\n" if isinstance(line, str) else dump_line(line) for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read_objects(path: Path) -> list[Any]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Converter:
    """``batchchat convert`` in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *arguments: str) -> tuple[int, list[str]]:
        """Exit code, and the lines on standard error."""
        with pytest.raises(SystemExit) as caught:
            main(["convert", *arguments])
        output = self._capsys.readouterr()
        assert output.out == ""
        assert "Traceback" not in output.err
        return caught.value.code, output.err.splitlines()

    def losses(self, *arguments: str) -> list[str]:
        """What was lost, of a conversion that works."""
        code, told = self(*arguments)
        assert code == 0, told
        assert told[-1].startswith("batchchat: ")
        return [line.removeprefix("batchchat: ") for line in told[:-1]]

    def faults(self, *arguments: str) -> list[str]:
        """What was wrong with lines; nothing may have been written."""
        before = sorted(path.name for path in self.folder.iterdir())
        code, told = self(*arguments)
        assert code == 3, told
        assert sorted(path.name for path in self.folder.iterdir()) == before
        assert told[-1].endswith("nothing was written")
        return told[:-1]

    def refusal(self, *arguments: str) -> str:
        """The one sentence of a usage error."""
        code, told = self(*arguments)
        assert code == 2, told
        (sentence,) = told
        return sentence.removeprefix("batchchat: ")


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Converter:
    """The command, in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Converter(tmp_path, capsys)
