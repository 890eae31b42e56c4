"""What is released works where nothing else is: the wheel in an environment of its own, the source archive beside it."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from batchchat.cli.man_pages import render_man_pages
from batchchat.version import RELEASED, VERSION
from tests.once import once
from tests.runs import read_lines, write_prompts

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[2]
# What is loaded by no help of any command, so that a build needs no more than click.
_ONLY_CLICK = (
    "aiohttp",
    "msgspec",
    "orjson",
    "jinja2",
    "rich",
    "yaml",
    "uvloop",
    "jsonschema",
    "aiolimiter",
    "zstandard",
)


class Built(NamedTuple):
    """The two files of a release, and the wheel that is made without the source archive."""

    wheel: Path
    archive: Path
    direct: Path


def quietly(*command: str | Path, folder: Path, **environment: str) -> str:
    """Standard output of a command that ends well and has nothing to complain of."""
    tools = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=os.environ | {"PATH": tools} | environment, capture_output=True, text=True,
        timeout=55,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, out: Path, *arguments: str) -> None:
    """Builds with what is installed here; no registry is asked. What a build must not need cannot be imported."""
    hidden = out.parent / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({_ONLY_CLICK}))\n")
    quietly(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *arguments, source,
        folder=out.parent, PYTHONPATH=str(hidden),
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = once(tmp_path_factory, "release", build_both)
    (wheel,) = (folder / "dist").glob("*.whl")
    (archive,) = (folder / "dist").glob("*.tar.gz")
    (direct,) = (folder / "direct").iterdir()
    return Built(wheel, archive, direct)


def build_both(folder: Path) -> None:
    build(ROOT, folder / "dist")
    build(ROOT, folder / "direct", "--wheel")


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of an environment that has the wheel and what it depends on, and nothing of this tree."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # As a line of a .pth file, this folder's own .pth files, which lead to the tree, are not heeded.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "venv" / "bin" / "python"
    quietly("uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, built.wheel, folder=folder)
    return python.parent


def members(archive: Path) -> set[str]:
    """Names below the archive's one folder."""
    with tarfile.open(archive) as file:
        return {name.partition("/")[2] for name in file.getnames()}


def test_archive_builds_the_same_wheel_as_the_tree(built: Built) -> None:
    assert built.wheel.name == built.direct.name == f"batchchat-{VERSION}-py3-none-any.whl"
    assert built.wheel.read_bytes() == built.direct.read_bytes()


def test_archive_holds_all_that_is_in_the_repository(built: Built) -> None:
    """Tests, documents and what they need are in it, and nothing that lies about in a working tree."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no repository")
    tracked = set(quietly("git", "ls-files", folder=ROOT).splitlines())
    present = {name for name in tracked if (ROOT / name).exists()}
    new = set(quietly("git", "ls-files", "--others", "--exclude-standard", folder=ROOT).splitlines())
    assert members(built.archive) - new == present | {"PKG-INFO"}


def test_wheel_holds_the_package_its_types_and_the_manual_alone(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as file:
        names = set(file.namelist())
    package = {name for name in names if name.startswith("batchchat/")}
    assert "batchchat/py.typed" in package
    assert {name for name in package if name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "batchchat").rglob("*.py")
    }
    page = ROOT / "batchchat" / "view"
    served = {path.relative_to(ROOT).as_posix() for path in (page / "static").iterdir()}
    assert {name for name in package if name.startswith("batchchat/view/") and not name.endswith(".py")} == served
    manual = {f"batchchat-{VERSION}.data/data/share/man/man1/{name}" for name in render_man_pages()}
    about = {f"batchchat-{VERSION}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert names - package == manual | about


def test_metadata_tells_what_it_is(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as file:
        about = email.message_from_bytes(file.read(f"batchchat-{VERSION}.dist-info/METADATA"))
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("batchchat", VERSION, "MIT")
    assert about["Requires-Python"] == ">=3.11"
    assert about["Description-Content-Type"] == "text/markdown"
    for requirement in about.get_all("Requires-Dist"):
        assert ">=" in requirement, f"{requirement} has no lower bound"
    classifiers = about.get_all("Classifier")
    from trove_classifiers import classifiers as known

    assert set(classifiers) <= known
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)


def test_changes_tell_of_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f"{VERSION} ({RELEASED})" in headings


def test_installed_command_is_this_version_and_not_of_the_tree(installed: Path, tmp_path: Path) -> None:
    assert quietly(installed / "batchchat", "--version", folder=tmp_path) == f"batchchat, version {VERSION}\n"
    assert "Commands:" in quietly(installed / "batchchat", "--help", folder=tmp_path)
    home = quietly(installed / "python", "-c", "import batchchat; print(batchchat.__file__)", folder=tmp_path)
    assert Path(home.strip()).is_relative_to(installed.parent)


def test_installed_providers_and_schema_are_whole(installed: Path, tmp_path: Path) -> None:
    providers = json.loads(quietly(installed / "batchchat", "providers", "--json", folder=tmp_path))
    assert {provider["name"] for provider in providers} >= {"ai-engine", "chatgpt4online", "local", "openai"}
    assert all("problem" not in provider for provider in providers)
    assert json.loads(quietly(installed / "batchchat", "schema", folder=tmp_path))["properties"]["provider"]


@pytest.mark.parametrize("provider", [["ai-engine"], ["openai", "--model", "m"]], ids=lambda provider: provider[0])
def test_installed_command_runs_a_job_against_its_own_server(
    installed: Path, tmp_path: Path, provider: list[str]
) -> None:
    write_prompts(tmp_path / "in.jsonl", 3)
    command = installed / "batchchat"
    quietly(
        command, "serve", "--port", "0", "--", command, "run", "in.jsonl", "-o", "out.jsonl", "--provider", *provider,
        folder=tmp_path, OPENAI_API_KEY="sk-x",
    )  # fmt: skip
    assert {line["response"] for line in read_lines(tmp_path / "out.jsonl")} == {
        f"Echo: question {n}" for n in range(3)
    }


def test_installed_manual_is_found(installed: Path, tmp_path: Path) -> None:
    pages = {path.name: path.read_text() for path in (installed.parent / "share" / "man" / "man1").iterdir()}
    assert pages == render_man_pages()
