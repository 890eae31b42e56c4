"""Which tools there are, what they need, and where their environments lie."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

__all__ = ["PEERS", "Peer", "installed", "main", "python_of"]


class Peer(msgspec.Struct, frozen=True):
    """One tool.

    Attributes:
        packages: What its environment needs.
        driver: Module of this package.
        prompts: How many it gets at the workload without latency; the slow ones get fewer.
        python: Version that it needs, where not the one that runs this.
    """

    packages: tuple[str, ...]
    driver: str
    prompts: int
    provider: str = "openai"
    python: str | None = None


PEERS = {
    "session per prompt": Peer(("aiohttp",), "one_by_one", 3000, "ai-engine"),
    "lm-deluge": Peer(("lm-deluge",), "lm_deluge_client", 5000),
    "flexllm": Peer(("flexllm",), "flexllm_command", 2000),
    "batchllm-ai": Peer(("batchllm-ai",), "batchllm_command", 1000),
    "openai SDK": Peer(("openai", "aiolimiter"), "openai_sdk", 1000),
    "async-batch-llm": Peer(("async-batch-llm[openai]",), "async_batch_llm_client", 1000),
    "curator": Peer(("bespokelabs-curator",), "curator_client", 1000),
    "litellm": Peer(("litellm", "aiolimiter"), "litellm_client", 500),
    "inspect-ai": Peer(("inspect-ai", "openai"), "inspect_client", 500),
    "infermesh": Peer(("infermesh",), "infermesh_command", 500, python="3.12"),
}


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("BENCH_PEERS") or f"{cache}/batchchat-bench")


def python_of(name: str) -> Path:
    """Its interpreter, whether that is there or not."""
    return _folder() / name.replace(" ", "-") / "bin" / "python"


def installed() -> dict[str, Peer]:
    """Those whose environment is there."""
    return {name: peer for name, peer in PEERS.items() if python_of(name).exists()}


def main(names: list[str]) -> int:
    """Makes the environments of these tools, or of all; a word about each that cannot be had."""
    uv = shutil.which("uv")
    missed = 0
    for name in names or PEERS:
        peer, python = PEERS[name], python_of(name)
        version = peer.python or sys.executable
        if uv:
            make = [uv, "venv", "-q", "--allow-existing", "--python", version, str(python.parents[1])]
            fill = [uv, "pip", "install", "-q", "--python", str(python), *peer.packages]
        else:
            make = [shutil.which(f"python{version}") or sys.executable, "-m", "venv", "--without-pip"]
            make.append(str(python.parents[1]))
            fill = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *peer.packages]
        try:
            for command in (make, fill):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
            print(f"{name}: installed")
        except (subprocess.SubprocessError, OSError) as error:
            missed += 1
            shutil.rmtree(python.parents[1], ignore_errors=True)
            told = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            print(f"{name}: skipped, cannot be had here ({told[-1] if told else 'no word why'})")
    return missed


if __name__ == "__main__":
    main(sys.argv[1:])
