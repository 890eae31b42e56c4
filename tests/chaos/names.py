"""A resolver of the suite's own: what a name stands for is written in a file and may change at any moment."""

import shutil
import subprocess
from pathlib import Path

from tests.chaos.registry import Unavailable
from tests.chaos.world import World

__all__ = ["NAME", "Names"]

NAME = "chaos.test"
# Python's loops ask the C library, each in its own way, so that is where the answer is put in.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int (*ask)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    ask real = (ask)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("CHAOS_NAMES");
    if (!node || !path || strcmp(node, "chaos.test")) return real(node, service, hints, found);
    FILE *file = fopen(path, "r");
    if (!file) return EAI_AGAIN;
    char address[64];
    struct addrinfo **next = found;
    *found = NULL;
    int failed = EAI_AGAIN;
    while (fscanf(file, "%63s", address) == 1) {
        if (!strcmp(address, "unknown")) { failed = EAI_NONAME; break; }
        if (!strcmp(address, "failing")) { failed = EAI_FAIL; break; }
        if (real(address, service, hints, next) == 0) {
            while (*next) next = &(*next)->ai_next;
        }
    }
    fclose(file);
    return *found ? 0 : failed;
}
"""


class Names:
    """What ``chaos.test`` stands for in the runs of a world.

    Args:
        addresses: In the order of the answer; ``unknown`` and ``failing`` are refusals, none is "try again".

    Raises:
        Unavailable: There is no C compiler.
    """

    def __init__(self, world: World, *addresses: str) -> None:
        self._path = world.folder / "names"
        self.are(*addresses)
        library = _built(world.folder)
        world.environ |= {"LD_PRELOAD": str(library), "CHAOS_NAMES": str(self._path)}

    def are(self, *addresses: str) -> None:
        """Changes them."""
        new = self._path.with_suffix(".new")
        new.write_text(" ".join(addresses))
        new.replace(self._path)


def _built(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("no C compiler to build a resolver with")
    source, library = folder / "names.c", folder / "names.so"
    source.write_text(_SOURCE)
    built = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], capture_output=True)
    if built.returncode:
        raise Unavailable("the C compiler builds no library that can be loaded first")
    return library
