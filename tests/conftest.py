"""Shared by all tests: no connection leaves this machine, and mocked answers fit the installed aiohttp."""

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import aiohttp
import hypothesis
import pytest
from aioresponses import core as aioresponses_core

# The same examples every time, so that a change is judged by what it changed; HYPOTHESIS_PROFILE=default explores.
# No test is judged by the clock, as the machine may be busy with others.
_TOO_SLOW = hypothesis.HealthCheck.too_slow
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[_TOO_SLOW])
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Twice as many as there are processors: tests of processes wait for most of their time."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection that is not for this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests talk to loopback only, not to {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="module")
def _cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a module's own servers and clusters are started with, before any of its tests has its own.

    Test servers give the same nonces each time, and one may listen where another one did an hour ago.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nonces and keys of this machine's user take no part."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    for name in ("OPENAI_API_KEY", "BATCHCHAT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class _Response(aiohttp.ClientResponse):
    """aioresponses does not know the argument that newer versions of aiohttp need (its issue 289)."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def mocked_http(monkeypatch: pytest.MonkeyPatch):
    """aioresponses for what a provider asks and parses."""
    monkeypatch.setattr(aioresponses_core, "ClientResponse", _Response)
    with aioresponses_core.aioresponses() as mocked:
        yield mocked
