"""Puts the manual into a wheel, as ``share/man/man1``: made at build time, so that it tells what the commands say."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["ManualHook"]


class ManualHook(BuildHookInterface[Any]):
    """Adds the pages to the data of a wheel. The commands import click alone for their help, so it needs no more."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        try:
            from batchchat.cli.man_pages import render_man_pages
        finally:
            sys.path.remove(self.root)
        self._folder = Path(tempfile.mkdtemp(prefix="batchchat-man-"))
        for name, page in render_man_pages().items():
            (self._folder / name).write_text(page, encoding="ascii")
            build_data["shared_data"][str(self._folder / name)] = f"share/man/man1/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._folder, ignore_errors=True)
