"""Answers that are there already, and prompts that ask the same, on a cluster: looked at before shards are cut."""

import pickle
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO

from batchchat.ids import IdTable
from batchchat.records import Outcome, Prompt
from batchchat.shared_answers import AnswerStore, SharedAnswers
from batchchat.survey import ToDo

__all__ = ["Sharing"]


class Sharing:
    """Takes out of what is to do what need not be asked.

    Prompts that ask the same as one before are put aside, in a temporary file without a name, until that one has its
    outcome. Blocks; used from one thread at a time, but for ``add``.

    Args:
        store: Answers that are there already; those of this run come to it.
        shared: Reads them as this run's rule does.
        dedup: Whether prompts of this run that ask the same are sent once.
    """

    def __init__(self, store: AnswerStore, shared: SharedAnswers, *, dedup: bool) -> None:
        self._store, self._shared, self._dedup = store, shared, dedup
        self._asked = IdTable()
        self._failures: dict[str, Outcome] = {}
        self._aside: IO[bytes] | None = None
        self._read: IO[bytes] | None = None
        self._lock, self._closed = threading.Lock(), False
        self._count = 0

    def close(self) -> None:
        """Removes the temporary files, also those that the thread which reads the input is still at."""
        with self._lock:
            self._closed = True
            for file in (self._aside, self._read):
                if file is not None:
                    file.close()

    def left(self, items: Iterable[ToDo]) -> Iterator[ToDo | Outcome]:
        """What is to be asked, and outcomes of what need not be."""
        for item in items:
            if not isinstance(item, tuple) or item[0].chat_id is not None:
                yield item
                continue
            prompt, fingerprint = item
            if (found := self._outcome(prompt, fingerprint)) is not None:
                yield found
            elif not (self._dedup and not self._asked.add(fingerprint) and self._put_aside(item)):
                yield item

    def add(self, outcome: Outcome) -> None:
        """An outcome of this run, for the prompts that wait for it."""
        if not self._dedup or outcome.fingerprint is None or outcome.fingerprint not in self._asked:
            return
        if outcome.error is not None:
            self._failures[outcome.fingerprint] = outcome
        else:
            self._shared.keep(outcome)

    def put_aside(self) -> Iterator[ToDo] | None:
        """What waited, to be looked at again; of equal ones whose first has no outcome, the next is to be asked."""
        aside, count = self._aside, self._count
        if aside is None or not count:
            return None
        self._aside, self._read, self._count, self._asked = None, aside, 0, IdTable()
        return _read(aside, count)

    def _put_aside(self, item: ToDo) -> bool:
        """Keeps it for later; False where the temporary folder takes nothing, so that it has to be asked as well."""
        with self._lock:
            if self._closed:  # the run is over, and nobody takes it any more
                return True
            try:
                if self._aside is None:
                    self._aside = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``close``, or once it is read
                pickle.dump(item, self._aside)
                self._aside.flush()
            except OSError as error:
                self._shared.tell_trouble(str(error.strerror or error))
                return False
            self._count += 1
            return True

    def _outcome(self, prompt: Prompt, fingerprint: str) -> Outcome | None:
        if (failed := self._failures.get(fingerprint)) is not None:
            return self._shared.reused(failed, prompt)
        stored = self._shared.look_up(fingerprint) if len(self._store) else None
        return None if stored is None else self._shared.reused(stored, prompt)


def _read(aside: IO[bytes], count: int) -> Iterator[ToDo]:
    with aside:
        aside.seek(0)
        for _ in range(count):
            yield pickle.load(aside)  # noqa: S301 - this process wrote it, and no other can
