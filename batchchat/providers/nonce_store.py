"""A site's nonce on disk, so that the next run and other processes start without a fetch."""

import contextlib
import os
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import msgspec
import orjson

__all__ = ["NonceStore", "StoredNonce"]

_LOCK_WAIT_S = 5.0


class StoredNonce(msgspec.Struct, frozen=True, kw_only=True):
    """A nonce and its age in seconds when it was read."""

    value: str
    age_s: float


class NonceStore:
    """One file a site: ``{"site", "nonce", "obtained_at"}``, mode 0600, replaced whole under a lock.

    A cache must never hurt a run: what cannot be read is not there, what cannot be written is told once by
    ``trouble`` and otherwise ignored.

    Args:
        folder: Made with mode 0700 when the first nonce is written.
        url: Address of the site; only its digest is kept, as it may hold a password.
    """

    def __init__(self, folder: str, url: str) -> None:
        import filelock  # only here: most providers have no nonce

        self._site = blake2b(url.encode(), digest_size=8).hexdigest()
        self._path = Path(folder) / f"nonce-{self._site}.json"
        self._lock = filelock.FileLock(f"{self._path}.lock", timeout=_LOCK_WAIT_S, mode=0o600)
        self.trouble: str | None = None

    def read(self, max_age_s: float) -> StoredNonce | None:
        """The stored nonce, if there is one for this site that is younger than ``max_age_s``."""
        try:
            stored = orjson.loads(self._path.read_bytes())
            value, age_s = stored["nonce"], time.time() - stored["obtained_at"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if stored.get("site") != self._site or not isinstance(value, str) or not value:
            return None
        return StoredNonce(value=value, age_s=age_s) if 0 <= age_s < max_age_s else None

    def write(self, nonce: StoredNonce) -> None:
        """Stores a nonce; an older one than the file holds is left out."""
        obtained_at = time.time() - nonce.age_s
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._lock:
                if not self._newer_stored(obtained_at):
                    self._replace({"site": self._site, "nonce": nonce.value, "obtained_at": obtained_at})
        except OSError as error:  # a lock that is not to be had in time is one as well
            self.trouble = f"the nonce cache {self._path} cannot be written ({error})"

    def forget(self, value: str) -> None:
        """Removes a refused nonce, unless another process has stored a newer one since."""
        try:
            with self._lock:
                if orjson.loads(self._path.read_bytes()).get("nonce") == value:
                    self._path.unlink()
        except (OSError, ValueError, AttributeError):
            return

    def _newer_stored(self, obtained_at: float) -> bool:
        try:
            stored = float(orjson.loads(self._path.read_bytes())["obtained_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return obtained_at < stored <= time.time()

    def _replace(self, content: dict[str, object]) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)  # 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(content))
            os.replace(name, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
