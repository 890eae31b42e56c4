"""One object store and one proxy before it for all tests of a worker process; each test has a folder of keys for itself."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from batchchat.cli import main
from batchchat.storage.store import _made
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.object_store import BUCKET, KEYS, object_store


@pytest.fixture(scope="session")
def _proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    with object_store(tmp_path_factory.mktemp("weed")) as address, faulty_proxy(address) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The store as the environment tells it; ``faults`` are of this test only."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _proxy.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    _proxy.reset()
    yield _proxy
    _proxy.reset()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command line in this process, which has loaded the libraries already: exit code, output, messages."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return (int(end.value.code or 0), *capsys.readouterr())

    _made.cache_clear()  # each test's environment counts
    yield run
    _made.cache_clear()


@pytest.fixture
def at(proxy: FaultyProxy) -> str:
    """The address of a folder that no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
