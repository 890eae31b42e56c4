"""Further tries of a request to a store: bounded in number, further and further apart, ended at once when given up."""

import random
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from batchchat.storage.faults import StorageError, TransientError

__all__ = ["PATIENT", "QUICK", "Patience", "Tries"]

_T = TypeVar("_T")


class Patience(msgspec.Struct, frozen=True):
    """How long to go on: tries in all, seconds before the second one, and most seconds between two.

    Attributes:
        reaching: Most tries while nothing answers at all: a wrong address does not get better.
    """

    tries: int
    first_s: float
    most_s: float
    reaching: int


# About 90 s of a store that asks to slow down, or some 3 s of one that is not there.
QUICK = Patience(12, 0.3, 15.0, 4)
# For what a run has already got: as long for a store that is not there.
PATIENT = Patience(12, 0.3, 15.0, 12)


class Tries:
    """What repeats requests; ``give_up`` from another thread ends the wait between two of them.

    Args:
        patience: How long to go on.
        stop: Set to end it.
    """

    def __init__(self, patience: Patience = QUICK, stop: threading.Event | None = None) -> None:
        self.patience = patience
        self._stop = stop or threading.Event()

    def give_up(self) -> None:
        """Ends what goes on, and all that comes."""
        self._stop.set()

    @property
    def given_up(self) -> bool:
        """Whether it was."""
        return self._stop.is_set()

    def call(self, request: Callable[[], _T], *, progress: Callable[[], int] = lambda: 0) -> _T:
        """The outcome of the first try that comes to an end.

        Args:
            request: One try.
            progress: Grows with what came in; the count of tries begins anew after a try that brought some.

        Raises:
            StorageError: What no further try would mend, or the last one's fault.
        """
        failed, came = 0, progress()
        while True:
            try:
                return request()
            except TransientError as error:
                if progress() > came:
                    failed, came = 0, progress()
                failed += 1
                most = self.patience.reaching if error.is_connecting else self.patience.tries
                if failed >= most:
                    raise
                wait_s = min(self.patience.first_s * 2 ** (failed - 1), self.patience.most_s)
                if self._stop.wait(wait_s * random.uniform(0.5, 1.0)):
                    raise StorageError(error.place, f"given up after: {error.reason}", "given up") from error
