"""The process that runs the model; started by path, so that nothing of the parent has to be loaded in it.

The first line of its standard input is a JSON object of settings, the only line of its standard output tells the
server's address or what went wrong. Its log goes to standard error. It ends when its standard input does, so that it
never outlives the process that started it, whatever ends that one.
"""

import json
import os
import sys
from typing import Any

__all__: list[str] = []


def _main() -> None:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before the import: threads that spin are a tenth as fast beside others
    answer = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints is log
    settings = json.loads(sys.stdin.buffer.readline())
    try:
        server = _server(settings)
        told = {"base_url": server.listening_address}
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    os.write(answer, json.dumps(told).encode() + b"\n")
    if "base_url" in told:
        sys.stdin.buffer.read()
    os._exit(0)  # its threads may be at work on an answer that nobody waits for


def _server(settings: dict[str, Any]) -> Any:
    import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]  # of an extra

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # else up to 8 GiB of prompts that went by
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    _main()
