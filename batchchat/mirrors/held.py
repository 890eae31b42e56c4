"""Requests that are made only as long as the run still holds the results."""

import threading
from collections.abc import Callable
from typing import TypeVar

from batchchat.mirrors.keeping import LeaseKeeper
from batchchat.storage.tries import PATIENT, Tries

__all__ = ["HeldTries"]

_T = TypeVar("_T")


class HeldTries(Tries):
    """Asks before every try: objects of the run that has the results now may have the same names.

    ``call`` raises ``LeaseLostError`` once another run has the lease.

    Args:
        keeper: Of the lease.
        stop: As of ``Tries``.
    """

    def __init__(self, keeper: LeaseKeeper, stop: threading.Event) -> None:
        super().__init__(PATIENT, stop)
        self._keeper = keeper

    def call(self, request: Callable[[], _T], *, progress: Callable[[], int] = lambda: 0) -> _T:
        """See ``Tries``."""

        def held() -> _T:
            if self._keeper.lost is not None:
                raise self._keeper.lost
            return request()

        return super().call(held, progress=progress)
