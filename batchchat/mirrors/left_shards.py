"""Shards that the workers of an earlier run left in a store: taken in until no more comes, and then removed."""

import contextlib
import os
import time
from typing import NamedTuple

from batchchat.errors import ResultsLockedError
from batchchat.mirrors.leftovers import take_in_data, take_in_file
from batchchat.mirrors.parts import Marker, ShardPlaces, copy_down, each_of, places_of, remove_marker
from batchchat.results import Journal
from batchchat.results.lock import is_locked
from batchchat.storage.objects import stat_or_none
from batchchat.storage.segments import Segments
from batchchat.storage.tries import Tries

__all__ = ["LeftShards"]

# Workers of a run that was killed end within moments; until nothing new has come for so long, they are waited for.
_QUIET_S, _WAIT_S, _PAUSE_S = 2.0, 30.0, 0.1


class _Seen(NamedTuple):
    """What there was of a shard without a part: how many segments, and bytes in them and on this machine."""

    segments: int
    segment_bytes: int
    here_bytes: int


class LeftShards:
    """``take_in``, and once that is safe, ``remove``; they block.

    Args:
        folder: Of the mirror.
        results: URL.
        marker: What the earlier run has left of its shards.
        tries: For all requests.
    """

    def __init__(self, folder: str, results: str, marker: Marker, tries: Tries) -> None:
        self._folder, self._results, self._marker, self._tries = folder, results, marker, tries
        self._places = places_of(results, marker)
        self._left_s = 0.0  # of waiting; what is read meanwhile may take its time
        # Of the shards that were taken in: a part never changes, and has all that segments had.
        self._whole: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def take_in(self, journal: Journal) -> None:
        """Appends the answers, and waits until there are no more: until two looks, some time apart, find the same.

        Raises:
            ResultsLockedError: A worker goes on writing.
            ResultsFileError: They cannot be read or added; all stay.
        """
        self._left_s = _WAIT_S
        self._look(journal)
        while self._places:
            self._pause(_QUIET_S)
            if not self._look(journal):
                return

    def remove(self) -> bool:
        """Removes what was taken in, the marker last; False, and the marker stays, where there is more by now.

        Raises:
            StorageError: It cannot be removed.
        """
        unfinished = [each for each in self._places if each.part not in self._whole]
        late = {each.part for each, now in zip(unfinished, each_of(unfinished, self._now), strict=True) if now}
        each_of([each for each in self._places if each.part not in late], lambda each: each.remove(self._tries))
        if late:
            return False
        remove_marker(self._results, self._marker, self._tries)
        return True

    def _now(self, places: ShardPlaces) -> bool:
        """Whether there is more of an unfinished shard than was taken in."""
        if stat_or_none(places.part, tries=self._tries) is not None:
            return True
        pieces = list(Segments(places.segments, tries=self._tries).read_all())
        return _seen(places, pieces) != self._seen.get(places.part)

    def _look(self, journal: Journal) -> bool:
        """Takes in what is there now; whether that is anything else than before."""
        changed = self._take_in_parts(journal)
        unfinished = [each for each in self._places if each.part not in self._whole]
        found = each_of(unfinished, lambda each: list(Segments(each.segments, tries=self._tries).read_all()))
        for each, pieces in zip(unfinished, found, strict=True):
            for data in pieces:
                take_in_data(journal, self._folder, data)
            self._take_in_here(journal, each)
            seen = _seen(each, pieces)
            changed = seen != self._seen.get(each.part) or changed
            self._seen[each.part] = seen
        # A shard that was made whole meanwhile may have been without segments when these were read.
        return self._take_in_parts(journal) or changed

    def _take_in_parts(self, journal: Journal) -> bool:
        """Takes in parts that were not there before; whether there were some."""
        unfinished = [each for each in self._places if each.part not in self._whole]
        # Asked for side by side, and added one after another.
        known = each_of(unfinished, lambda each: stat_or_none(each.part, tries=self._tries) is not None)
        path = os.path.join(self._folder, "part-of-run.jsonl")
        for each, whole in zip(unfinished, known, strict=True):
            if whole and copy_down(each.part, path, self._tries):
                take_in_file(journal, self._folder, path)
                self._whole.add(each.part)
            with contextlib.suppress(OSError):
                os.unlink(path)
        return any(known)

    def _take_in_here(self, journal: Journal, places: ShardPlaces) -> None:
        """What a worker on this machine had not brought to the store."""
        while is_locked(places.journal):
            self._pause(_PAUSE_S)
        for path in _here(places):
            take_in_file(journal, self._folder, path)

    def _pause(self, pause_s: float) -> None:
        if self._left_s <= 0:
            raise ResultsLockedError(
                f"{self._results}: a worker of an earlier run still writes there; wait for it to end, "
                "or name others with -o"
            )
        self._left_s -= pause_s
        time.sleep(pause_s)


def _seen(places: ShardPlaces, pieces: list[bytes]) -> _Seen:
    return _Seen(len(pieces), sum(map(len, pieces)), sum(map(os.path.getsize, _here(places))))


def _here(places: ShardPlaces) -> list[str]:
    return [path for path in (places.journal, *places.kept_here()) if os.path.isfile(path)]
