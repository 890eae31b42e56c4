"""Runs a command and writes what it cost into a file: ``python -S launcher.py FILE COMMAND…``.

A process of its own because the memory of a child counts from that of its parent: the test runner's would hide it. What
is read includes the children that the command waited for.
"""

import json
import os
import sys
import time

if __name__ == "__main__":
    began = time.perf_counter()
    child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, usage = os.wait4(child, 0)
    figures = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024),
        "exit": os.waitstatus_to_exitcode(status),
    }
    with open(sys.argv[1], "w") as sink:
        json.dump(figures, sink)
