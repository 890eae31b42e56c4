"""Builds the site of the documents: ``python docs/tools/build_site.py FOLDER``. Needs the group ``dev``, no network.

The documents stay as they are, to be read by themselves; here they are laid out beside the pages that are made of the
code, with the README in front, and Sphinx makes HTML of them. Every warning is an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parents[1]
sys.path.insert(0, str(ROOT))
from reference import commands_page, job_page, python_page  # noqa: E402

__all__ = ["build", "main"]

_LINK = re.compile(r"(?<=\]\()([^)\s#:]*)(#[^)\s]*)?(?=\))")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_PARTS = {
    "Begin": ["install", "tutorial", "input", "results", "answers", "troubleshooting"],
    "Recipes": ["recipes/*"],
    "Run": [
        "jobs",
        "limits",
        "cost",
        "unattended",
        "control",
        "view",
        "report",
        "monitoring",
        "scale",
        "scaling",
        "convert",
    ],
    "Services": ["providers", "local", "protocol", "write-a-provider", "devserver"],
    "Reference": ["reference/commands", "reference/job", "reference/python", "changes"],
    "Inside": ["architecture", "reliability", "performance", "security", "testing", "adr/index"],
}


def build(out: Path) -> None:
    """Writes the site into a folder, which is made anew.

    Raises:
        subprocess.CalledProcessError: Sphinx found something wrong; it has told what.
    """
    with tempfile.TemporaryDirectory(prefix="batchchat-site-") as folder:
        pages = Path(folder) / "pages"
        lay_out(pages)
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-c", str(TOOLS),
             "-d", f"{folder}/doctrees", str(pages), str(out)],
            check=True, env=os.environ | {"BATCHCHAT_TREE": str(ROOT)},
        )  # fmt: skip
    for name in ("objects.inv", ".buildinfo"):
        (out / name).unlink(missing_ok=True)


def lay_out(pages: Path) -> None:
    """Puts all pages and pictures where Sphinx is to find them."""
    for path in sorted((ROOT / "docs").rglob("*")):
        name = path.relative_to(ROOT / "docs").as_posix()
        if path.suffix in (".md", ".svg", ".png") and not path.is_relative_to(TOOLS):
            _put(pages / name, path)
    _put(pages / "index.md", ROOT / "README.md")
    _put(pages / "changes.md", ROOT / "CHANGELOG.md")
    decisions = sorted(path.stem for path in (ROOT / "docs" / "adr").glob("*.md"))
    _write(pages / "adr" / "index.md", "# Decisions\n\n" + _toctree("", decisions, hidden=False))
    for name, text in (("commands", commands_page()), ("job", job_page()), ("python", python_page())):
        _write(pages / "reference" / f"{name}.md", text)
    shutil.copy(ROOT / "jobs" / "job.schema.json", pages / "reference")
    index = (pages / "index.md").read_text(encoding="utf-8")
    _write(pages / "index.md", index + "".join(_toctree(part, names) for part, names in _parts(pages).items()))


def _parts(pages: Path) -> dict[str, list[str]]:
    """The pages of each part of the site; one that no part names stands with those about runs."""
    parts = {part: [page for name in names for page in _matching(pages, name)] for part, names in _PARTS.items()}
    listed = {name for names in parts.values() for name in names}
    parts["Run"] += [name for name in _matching(pages, "*") if name not in listed | {"index"}]
    return parts


def _matching(pages: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(pages).with_suffix("").as_posix() for path in pages.glob(f"{pattern}.md"))


def _toctree(caption: str, names: list[str], *, hidden: bool = True) -> str:
    options = [f":caption: {caption}"] if caption else [":maxdepth: 1"]
    return "\n".join(["", "```{toctree}", *options, *([":hidden:"] if hidden else []), "", *names, "```", ""])


def _put(target: Path, source: Path) -> None:
    """A page with links that fit its new place, or a picture as it is."""
    if source.suffix != ".md":
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return
    parts = _FENCED.split(source.read_text(encoding="utf-8"))
    for number in range(0, len(parts), 2):
        parts[number] = _LINK.sub(lambda found: _moved(source, target, found[1], found[2] or ""), parts[number])
    _write(target, "".join(parts))


def _moved(source: Path, target: Path, link: str, anchor: str) -> str:
    """A link of a document, for the place where the document stands now. Files that are no pages are copied."""
    if not link:
        return anchor
    linked = (source.parent / link).resolve()
    pages = target.parents[len(_place_of(source).parts) - 1]
    place = _place_of(linked)
    if linked.suffix != ".md" and linked.is_file():
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(linked, pages / place)
    return os.path.relpath(pages / place, target.parent) + anchor


def _place_of(path: Path) -> Path:
    """Where a file of the tree stands among the pages."""
    name = path.relative_to(ROOT).as_posix()
    special = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "docs/adr": "adr/index.md"}
    if name in special:
        return Path(special[name])
    if not name.startswith("docs/"):
        return Path("files") / f"{name.replace('/', '-')}.txt"
    return Path(name.removeprefix("docs/"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Builds into the folder that is named; 1 where something is wrong."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python docs/tools/build_site.py FOLDER\n")
        return 2
    try:
        build(Path(sys.argv[1]).resolve())
    except subprocess.CalledProcessError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
