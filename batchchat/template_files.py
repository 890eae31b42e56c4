"""Files that templates are read from: those inside the job file's folder, and no others."""

import os
import stat
from collections.abc import Callable
from typing import Any

from jinja2 import BaseLoader, TemplateError, TemplateNotFound

__all__ = ["MAX_TEMPLATE_BYTES", "TemplateFolder", "UnusableFileError"]

MAX_TEMPLATE_BYTES = 1 << 20


class UnusableFileError(TemplateError):
    """A template's file is there and cannot be used, or its name leads out of the folder."""


class TemplateFolder(BaseLoader):
    """Loads templates by their path inside a folder; each is read and compiled once.

    Args:
        folder: The job file's folder; None where there is no job file, and then nothing can be loaded.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:
        """For Jinja; see ``read``."""
        return self.read(template), template, lambda: True

    def read(self, name: str) -> str:
        """Text of a template.

        Args:
            name: Path inside the folder, with ``/`` between its parts.

        Raises:
            TemplateNotFound: There is no such file.
            UnusableFileError: The path leads out of the folder, or what is there is no text file of at most 1 MiB.
        """
        if self.folder is None:
            raise UnusableFileError(f"{name!r} cannot be loaded, as templates come from the job file's folder; give -j")
        path = self._path_of(name)
        try:
            with open(path, "rb", opener=_open_now) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise UnusableFileError(f"expected a file at {name!r}, found none that can be read")
                data = file.read(MAX_TEMPLATE_BYTES + 1)
        except FileNotFoundError:
            raise TemplateNotFound(name, f"there is no file {name!r} in {self._shown}") from None
        except OSError as error:
            raise UnusableFileError(f"{name!r} cannot be read ({error.strerror or error})") from error
        if len(data) > MAX_TEMPLATE_BYTES:
            raise UnusableFileError(f"{name!r} is larger than {MAX_TEMPLATE_BYTES >> 20} MiB, expected a template")
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise UnusableFileError(f"{name!r} is not UTF-8; save it as UTF-8") from None

    @property
    def _shown(self) -> str:
        return self.folder or "the working folder"

    def _path_of(self, name: str) -> str:
        parts = name.split("/")
        if (
            not name
            or "\0" in name
            or not _encodable(name)
            or "\\" in name
            or os.path.isabs(name)
            or ".." in parts
            or os.path.splitdrive(name)[0]
        ):
            raise UnusableFileError(
                f"expected the path of a file inside the job file's folder, with / between its parts, found {name!r}"
            )
        root = os.path.realpath(self.folder or ".")
        path = os.path.realpath(os.path.join(root, *parts))
        if path != root and os.path.commonpath((root, path)) != root:
            raise UnusableFileError(f"{name!r} is a link that leads out of the job file's folder")
        return path


def _encodable(name: str) -> bool:
    """Whether a file can have that name: a template may write half of a surrogate pair."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _open_now(path: str, flags: int) -> int:
    # A pipe without a writer would be waited for.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
