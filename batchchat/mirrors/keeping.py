"""A thread that renews a run's lease as long as the run lives, whatever else goes on with the store."""

import threading
from collections.abc import Callable

from batchchat.mirrors.lease import RENEW_S, Lease, LeaseLostError
from batchchat.storage.faults import StorageError

__all__ = ["LeaseKeeper"]


class LeaseKeeper:
    """From ``start`` to ``close``; between them, the lease is the thread's.

    Attributes:
        lost: What was raised when another run had the lease; None as long as none has.
    """

    def __init__(self, lease: Lease) -> None:
        self.lost: LeaseLostError | None = None
        self._lease = lease
        self._tell: Callable[[LeaseLostError], None] | None = None
        self._notice: Callable[[str], None] = lambda sentence: None
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="batchchat-lease", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def on_loss(
        self, tell: Callable[[LeaseLostError], None], notice: Callable[[str], None] = lambda sentence: None
    ) -> None:
        """Has a loss told once, from the thread, or at once where it was before.

        Args:
            notice: Told, from the thread, of a renewal that fails in a way that nobody thought of.
        """
        with self._lock:
            self._tell, self._notice = tell, notice
            lost = self.lost
        if lost is not None:
            tell(lost)

    def close(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread.ident is not None:  # the system gave one
            self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stopped.wait(RENEW_S):
            try:
                self._lease.renew()
                failing = False
            except LeaseLostError as error:
                with self._lock:
                    self.lost, tell = error, self._tell
                if tell is not None:
                    tell(error)
                return
            except StorageError:
                continue  # the results that go up tell of it
            except Exception as error:  # a bug here must not let the lease go stale
                if not failing:
                    self._notice(f"the hold on the results cannot be renewed ({error!r}); the run goes on trying")
                failing = True
