"""One run at a time on results in a store, over machines: an object that its holder renews."""

import json
import os
import socket
import uuid
from datetime import UTC, datetime
from typing import Any

from batchchat.errors import ResultsLockedError
from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import get_bytes, put_bytes, remove, stat
from batchchat.storage.store import ABSENT
from batchchat.storage.tries import Patience, Tries

__all__ = ["RENEW_S", "Lease", "LeaseLostError"]

# A lease that was not renewed for so long is nobody's: three renewals and their further tries would have to fail.
RENEW_S, _STALE_S = 20.0, 120.0
_TURNS = 5
_NO_ETAG = f'"{"0" * 32}"'
_ONE_TRY = Patience(1, 0.0, 0.0, 1)


class LeaseLostError(ConflictError):
    """Another run has taken the results over."""


class Lease:
    """Held by one run; for one thread at a time.

    Args:
        place: URL of the lease.
        results: URL of what it is for, for messages.
        machine: Who this machine is. Its own lease is taken over at once: the caller holds what tells its runs apart.
        tries: For all requests.
    """

    def __init__(self, place: str, results: str, machine: str, tries: Tries) -> None:
        self._place, self._results, self._machine, self._tries = place, results, machine, tries
        self._etag: str | None = None
        self._run = uuid.uuid4().hex

    def take(self) -> list[str]:
        """Takes the lease; gives sentences on what the user should know of the store.

        Raises:
            ResultsLockedError: Another machine's run holds it.
            StorageError: The store cannot be asked.
        """
        for _ in range(_TURNS):
            try:
                self._etag = self._put(ABSENT)
                return self._conditions()
            except ConflictError:
                pass
            if (found := self._held()) is None:
                continue
            holder, etag, age_s = found
            if holder.get("machine") != self._machine and age_s < _STALE_S:
                seen = f"{_who(holder)}, seen {age_s:.0f} s ago"
                raise ResultsLockedError(
                    f"{self._results}: another run holds these results ({seen}); wait for it to end, or name others "
                    f"with -o; if it was killed, its hold ends in {_STALE_S - age_s:.0f} s"
                )
            try:
                self._etag = self._put(etag)
                return []
            except ConflictError:
                continue
        raise ResultsLockedError(f"{self._results}: another run takes hold of these results at this moment")

    def renew(self) -> None:
        """Tells that the run goes on.

        Raises:
            LeaseLostError: Another run has the lease.
            StorageError: The store cannot be asked.
        """
        if self._etag is None:
            return
        for _ in range(_TURNS):
            try:
                self._etag = self._put(self._etag)
                return
            except ConflictError as error:
                # An earlier renewal may have arrived though every answer to it was lost: then it is still our own.
                found = self._held()
                if found is None or found[0].get("run") != self._run:
                    self._etag = None
                    raise LeaseLostError(self._results, "another run has taken these results over") from error
                self._etag = found[1]
        raise StorageError(self._place, "the lease changes while it is renewed", "failed")

    def release(self) -> None:
        """Gives the lease up, if it is held.

        Raises:
            StorageError: The store cannot be asked.
        """
        if self._etag is None:
            return
        try:
            # Nobody may take it then for longer than the request that removes it can last.
            self.renew()
        except LeaseLostError:
            return
        self._etag = None
        # It has no condition. A further try may meet the lease of the next run, where only the answer to the first one
        # was lost; what is left goes stale by itself.
        remove(self._place, tries=Tries(_ONE_TRY))

    def _put(self, expect: str) -> str:
        told = {
            "machine": self._machine,
            "run": self._run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "nonce": uuid.uuid4().hex,  # so that each has an etag of its own
        }
        return put_bytes(self._place, json.dumps(told).encode(), expect=expect, tries=self._tries)

    def _held(self) -> tuple[dict[str, Any], str, float] | None:
        """Who holds it, its etag, and its age by the store's own clock; None where nobody does."""
        for _ in range(_TURNS):
            try:
                found = stat(self._place, tries=self._tries)
                data, etag = get_bytes(self._place, tries=self._tries)
            except StorageError as error:
                if error.kind == "missing":
                    return None
                raise
            if etag == found.etag:  # else it was renewed between both, and the age is that of the one before
                break
        else:
            return _parsed(data), etag, 0.0
        modified_at, now = found.modified_at, found.now or datetime.now(UTC)
        age_s = 0.0 if modified_at is None else max(0.0, (now - modified_at).total_seconds())
        return _parsed(data), etag, age_s

    def _conditions(self) -> list[str]:
        """Whether the store refuses what must not be there twice: all that keeps two machines apart depends on it."""
        for expect, name in ((ABSENT, "If-None-Match"), (_NO_ETAG, "If-Match")):
            try:
                self._etag = self._put(expect)
            except ConflictError:
                continue
            return [
                f"{self._results}: this store does not heed conditions of a request ({name}); see to it yourself "
                "that only one run at a time writes these results"
            ]
        return []


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(holder: dict[str, Any]) -> str:
    pid, host = holder.get("pid"), holder.get("host")
    known = isinstance(pid, int) and isinstance(host, str)
    return f"process {pid} on {host}" if known else "its lease cannot be read"
