"""Whether the system lets this process have the threads of a run."""

import contextlib
import threading

from batchchat.errors import ConfigError

__all__ = ["check_threads", "raise_for_threads"]

# For the input, the files, the disk, name resolution and what else must not stop the event loop.
_FEWEST_THREADS = 16
_WHAT_TO_DO = "raise the limit on processes (ulimit -u, pids.max of the container)"


def check_threads(fewest: int = _FEWEST_THREADS) -> None:
    """Sees that so many threads can be had at the same time, by starting them; takes about a millisecond.

    A library that cannot have one later ends the process on the spot.

    Raises:
        ConfigError: They cannot.
    """
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait, daemon=True) for _ in range(fewest)]
    started = 0
    with contextlib.suppress(RuntimeError):
        for thread in threads:
            thread.start()
            started += 1
    enough.set()
    for thread in threads[:started]:
        thread.join()
    if started < fewest:
        raise ConfigError(
            f"the system lets this process start {started} more threads, expected {fewest} at least; {_WHAT_TO_DO}"
        )


def raise_for_threads(error: Exception) -> None:
    """Makes a sentence of the error of a thread that could not be started in mid-run; returns where it is another.

    Raises:
        ConfigError: It is that one.
    """
    errors: list[BaseException] = [error]
    while isinstance(errors[0], BaseExceptionGroup):
        errors = [*errors[0].exceptions]
    if isinstance(errors[0], RuntimeError) and "start new thread" in str(errors[0]):
        raise ConfigError(f"the system lets this process start no more threads; {_WHAT_TO_DO}") from error
