"""What is served is what the page's sources make."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "batchchat" / "view" / "page"
STATIC = ROOT / "batchchat" / "view" / "static"


def test_built_files_are_those_of_the_sources() -> None:
    """``npm ci && npm run build`` in batchchat/view/page makes them anew."""
    names = [
        "build.mjs",
        "package.json",
        "package-lock.json",
        *(f"src/{path.name}" for path in (PAGE / "src").iterdir()),
    ]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + b"\0" + (PAGE / name).read_bytes() + b"\0")
    assert (STATIC / "sources.sha256").read_text().strip() == digest.hexdigest()


def test_no_built_file_asks_another_host() -> None:
    for path in STATIC.iterdir():
        if path.suffix in (".html", ".css"):
            assert "//" not in path.read_text().replace("http://www.w3.org/", "")
    assert "resolved" not in (PAGE / "package-lock.json").read_text()


def test_what_is_bundled_has_its_licence_beside_it() -> None:
    licences = (STATIC / "LICENSES.txt").read_text()
    assert "== markdown-it " in licences
    assert licences.count("MIT") >= 2


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_pages_own_tests_pass() -> None:
    done = subprocess.run(["node", "--test", *sorted(map(str, (PAGE / "test").glob("*.test.mjs")))], capture_output=True, text=True, timeout=50,
                          env={**os.environ, "NODE_OPTIONS": ""})  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "# fail 0" in done.stdout or "fail 0" in done.stdout
