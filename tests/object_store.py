"""An S3 service that no one here wrote, SeaweedFS's, on loopback; and a proxy before it that misbehaves as told."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.real_servers import seaweedfs_environment
from tests.runs import wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests", "AWS_REGION": "us-east-1"}
BUCKET = "bucket"
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_IDENTITY = {
    "name": "tests",
    "credentials": [{"accessKey": "tests", "secretKey": "secret-of-tests"}],
    "actions": _ACTIONS,
}
# Each of its ports has a second one, so much higher.
_GRPC = 10_000


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """The service's address; it has one bucket."""
    weed = seaweedfs_environment().folder / "bin" / "weed"
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": [_IDENTITY]}))
    master, volume, filer, admin, s3 = _free_ports(5)
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "volume.port": volume,
        "filer.port": filer,
        "admin.port": admin,
        "s3.port": s3,
        "s3.config": folder / "s3.json",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "bucket": BUCKET,
    }
    log = folder / "log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{name}={value}" for name, value in options.items())],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "HOME": str(folder), "GOMAXPROCS": "1"},
        )
    try:
        wait_until(lambda: process.poll() is not None or b"All enabled components are running" in log.read_bytes(), 50)
        assert process.poll() is None, log.read_text()[-2000:]
        yield f"http://127.0.0.1:{s3}"
    finally:
        process.kill()
        process.wait(10)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and their second ones too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(20_000 + os.getpid() % 5000, 50_000, 7):
            try:
                for number in (port, port + _GRPC):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free ports")
