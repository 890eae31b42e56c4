"""A system that gives no threads is told of in a sentence."""

import threading

import pytest

from batchchat.errors import ConfigError
from batchchat.threads import check_threads, raise_for_threads


def test_threads_that_can_be_had_are_given_back() -> None:
    before = threading.active_count()
    check_threads()
    assert threading.active_count() == before


def test_thread_that_could_not_be_started_is_told_however_deep_its_error_lies() -> None:
    error = RuntimeError("can't start new thread")
    for met in (error, ExceptionGroup("unhandled", [ExceptionGroup("inner", [error])])):
        with pytest.raises(ConfigError, match="ulimit -u"):
            raise_for_threads(met)
    raise_for_threads(RuntimeError("something else"))
    raise_for_threads(ExceptionGroup("unhandled", [ValueError("can't start new thread")]))
