"""Where the mirror of a run's files is, and what the files are called in the store."""

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import platformdirs

from batchchat.errors import BatchchatError, ConfigError
from batchchat.job_config import JobConfig
from batchchat.results import RunFiles, name_files
from batchchat.storage.urls import is_url, parse, same_object

__all__ = ["MirrorPlace", "machine_name", "mirror_place", "mirrored_job", "naming", "parts_prefix", "placed_in"]


class MirrorPlace(NamedTuple):
    """A run's files, twice.

    Attributes:
        folder: Of the mirror.
        local: Paths in the mirror, or of plain files that were named so.
        remote: The same files as the user knows them.
    """

    folder: str
    local: RunFiles
    remote: RunFiles

    def told(self, text: str) -> str:
        """A text with the names that the user knows."""
        named = (("errors", self.remote.errors), ("summary", self.remote.summary), ("", self.remote.results))
        for kind, remote in named:
            if remote is not None and is_url(remote):
                text = text.replace(os.path.join(self.folder, kind, ""), remote.rpartition("/")[0] + "/")
        return text

    def told_all(self, value: Any) -> Any:
        """A value as JSON has it, each text in it as ``told`` gives it."""
        if isinstance(value, str):
            return self.told(value)
        if isinstance(value, Mapping):
            return {key: self.told_all(each) for key, each in value.items()}
        return [self.told_all(each) for each in value] if isinstance(value, list | tuple) else value


@contextmanager
def naming(place: MirrorPlace) -> Iterator[None]:
    """Errors of what is inside are told with the names that the user knows."""
    try:
        yield
    except BatchchatError as error:
        error.args = (place.told(str(error)),)
        raise


def mirror_place(results: str, errors: str | None = None, summary: str | None = None) -> MirrorPlace:
    """The mirror of results at a URL; touches nothing.

    Raises:
        ConfigError: A URL is none of an object.
    """
    found = parse(results)
    # The kernel lock is in it: whatever the object is called, it has one mirror.
    name = blake2b(f"{found.kind}://{found.bucket}/{found.key}".encode(), digest_size=8).hexdigest()
    folder = os.path.join(_mirrors(), name)
    return placed_in(folder, results, errors, summary)


def placed_in(folder: str, results: str, errors: str | None, summary: str | None) -> MirrorPlace:
    """The files of results at a URL, in a folder of this machine; touches nothing.

    Raises:
        ConfigError: As ``mirror_place``.
    """
    parse(results)
    remote = name_files(results, errors, summary)
    local = name_files(
        os.path.join(folder, results.rpartition("/")[2]),
        _named(folder, "errors", errors),
        _named(folder, "summary", summary),
    )
    return MirrorPlace(folder, local, remote)


def mirrored_job(job: JobConfig) -> tuple[JobConfig, MirrorPlace] | None:
    """The job with the files of a mirror in the place of those in a store; None for a job whose files are plain.

    Raises:
        ConfigError: Files that cannot go together.
    """
    path = job.output.path
    if path is None or not is_url(path):
        for option, named in (("--errors", job.errors), ("--summary", job.summary)):
            if named is not None and is_url(named):
                raise ConfigError(f"{option} {named}: expected a plain file, as the results are none in a store")
        return None
    place = mirror_place(path, job.errors, job.summary)
    if any(same_object(path, name) for name in job.input):
        raise ConfigError(f"{path} is both input and results file; name another file with -o")
    output = msgspec.structs.replace(job.output, path=place.local.results)
    errors, remote = place.local.errors or "", place.remote.errors or ""
    mapped = msgspec.structs.replace(
        job,
        output=output,
        errors=None if job.errors is None else errors,
        summary=None if job.summary is None else place.local.summary,
        input=[errors if same_object(name, remote) else name for name in job.input],
    )
    return mapped, place


def parts_prefix(results: str) -> str:
    """The folder in the store that holds what a run has not brought into the results yet."""
    return f"{results}.parts"


def machine_name() -> str:
    """A name of those runs that the kernel's lock in a mirror keeps apart; the same from one start of it to the next.

    A copy of this machine has another name, and so have other machines, or containers, that see the same home or one
    from the same image.
    """
    folder = _mirrors()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, "machine")
    drawn = _read(path) or _drawn(path)
    file = os.stat(path)
    told = (drawn, socket.gethostname(), _read("/proc/sys/kernel/random/boot_id"), file.st_dev, file.st_ino)
    return blake2b(repr(told).encode(), digest_size=16).hexdigest()


def _read(path: str) -> str:
    """The text of a small file; empty where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _drawn(path: str) -> str:
    """Makes a file with a name by lot, whole or not at all; gives the name there, which another run may have drawn."""
    fd, trial = tempfile.mkstemp(dir=os.path.dirname(path), prefix="machine-")
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(uuid.uuid4().hex)
            file.flush()
            os.fsync(fd)
        try:
            os.link(trial, path)
        except OSError:
            # There is an empty one, or this is a file system without links. Of two runs that come here at once, one
            # may have a name that nobody has later: its lease is waited for, and never taken too early.
            if not _read(path):
                os.replace(trial, path)
    finally:
        with suppress(OSError):
            os.unlink(trial)
    return _read(path)


def _mirrors() -> str:
    return os.path.join(platformdirs.user_state_path("batchchat"), "mirrors")


def _named(folder: str, kind: str, given: str | None) -> str | None:
    """A file that was named apart from the results: in a folder of its own, so that its names stay apart too."""
    if given is None or not is_url(given):
        return given
    parse(given)
    return os.path.join(folder, kind, given.rpartition("/")[2])
