"""The site of the documents: built without a warning, whole, and of nothing but its own files."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from batchchat.cli import group
from batchchat.cli.command_tree import read_commands
from batchchat.job_config import JobConfig
from batchchat.job_schema import list_settings
from batchchat.providers import installed_providers, load_provider
from tests.once import once

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).resolve().parents[1]
# What a page loads by itself; an <a> leads somewhere only when it is followed.
_LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "embed": "src",
}


class Page(HTMLParser):
    """What a page loads, where its links lead, which places it has, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self._text: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join("".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places.add(given.get("id", ""))
        if (name := _LOADED.get(tag)) and name in given:
            self.loaded.append(given[name])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])

    def handle_data(self, data: str) -> None:
        self._text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "site", build) / "html"


def build(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "tools" / "build_site.py"), str(folder / "html")],
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its name."""
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_document_is_a_page(pages: dict[str, Page]) -> None:
    documents = {
        path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    reference = {f"reference/{name}.html" for name in ("commands", "job", "python")}
    assert documents | reference | {"index.html", "changes.html", "adr/index.html"} <= set(pages)


def test_every_page_is_found_from_the_first(pages: dict[str, Page]) -> None:
    listed = {link.partition("#")[0] for link in pages["index.html"].links}
    documents = {name for name in pages if not name.startswith(("adr/0", "genindex", "search", "py-modindex"))}
    assert documents - {"index.html"} <= listed
    decisions = {name.removeprefix("adr/") for name in pages if name.startswith("adr/0")}
    assert decisions <= set(pages["adr/index.html"].links)


def test_every_option_of_every_command_is_in_the_reference(pages: dict[str, Page]) -> None:
    text = pages["reference/commands.html"].text
    for command in read_commands(group).walk():
        assert f"{command.path} {command.arguments}".strip() in text
        for option in command.options:
            assert option.names in text, (command.path, option.names)
            for part in (option.default, option.variable, option.key):
                assert part is None or part in text


def test_every_key_of_the_job_and_of_the_providers_is_in_the_reference(pages: dict[str, Page]) -> None:
    text = pages["reference/job.html"].text
    for config in (JobConfig, *(load_provider(kind).Config for kind in installed_providers())):
        for setting in list_settings(config):
            if config is not JobConfig or setting.key.partition(".")[0] != "provider":
                assert f" {setting.key} " in text, setting.key


def test_public_names_are_in_the_reference(pages: dict[str, Page]) -> None:
    import batchchat

    text = pages["reference/python.html"].text
    assert [name for name in batchchat.__all__ if f"{name}(" not in text] == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for source in page.loaded:
            assert not re.match(r"(\w+:)?//", source), f"{name} loads {source}"
            assert source == "#" or source.startswith("data:") or _file(site, name, source).is_file(), (
                f"{name} lacks {source}"
            )
    styles = {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.css")}
    assert styles
    for name, style in styles.items():
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:\w+:)?//\S+", style) == [], name


def test_links_lead_to_pages_and_places_that_are_there(site: Path, pages: dict[str, Page]) -> None:
    for name, link in _links(pages):
        path, _, place = link.partition("#")
        target = _file(site, name, path) if path else site / name
        assert target.is_file(), f"{name} links to {link}"
        if place and target.suffix == ".html":
            assert unquote(place) in pages[target.relative_to(site).as_posix()].places, f"{name} links to {link}"


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    assert index.startswith("Search.setIndex(")
    for page in ("recipes/nightly-cron", "reference/commands", "protocol", "adr/0005-one-nonce"):
        assert f'"{page}"' in index


def test_nothing_tells_of_the_machine_it_was_built_on(site: Path) -> None:
    for path in site.rglob("*"):
        if path.is_file():
            assert str(ROOT).encode() not in path.read_bytes(), path


def _links(pages: dict[str, Page]) -> Iterator[tuple[str, str]]:
    for name, page in pages.items():
        for link in page.links:
            if not re.match(r"(\w+:|//)", link):
                yield name, link


def _file(site: Path, page: str, link: str) -> Path:
    return (site / page).parent.joinpath(unquote(link.partition("?")[0])).resolve()
