"""A loopback of its own that loses and delays what goes over it; needs root and the kernel's ``netem``."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

from tests.chaos.registry import Unavailable

__all__ = ["lossy_loopback"]

_NEW_NETWORK = 0x40000000


@contextlib.contextmanager
def lossy_loopback(*netem: str) -> Iterator[None]:
    """While entered, this thread and the processes it starts share a network of their own.

    Args:
        netem: What happens to its packets, in the words of ``tc``.

    Raises:
        Unavailable: The system does not let us, or lacks the tools.
    """
    if not shutil.which("ip") or not shutil.which("tc"):
        raise Unavailable("no ip and tc here")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        if libc.unshare(_NEW_NETWORK):
            raise Unavailable(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            for command in (
                ["ip", "link", "set", "lo", "up"],
                ["tc", "qdisc", "add", "dev", "lo", "root", "netem", *netem],
            ):
                made = subprocess.run(command, capture_output=True, text=True)
                if made.returncode:
                    raise Unavailable(f"no lossy loopback: {made.stderr.strip()[:80]}")
            yield
        finally:
            libc.setns(before.fileno(), _NEW_NETWORK)
