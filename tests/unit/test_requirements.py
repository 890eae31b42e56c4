"""The locks fit the metadata: the lowest versions are the bounds that it tells, the others are within them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOWEST = ROOT / ".ci" / "lowest.lock"
NEWEST = ROOT / ".ci" / "requirements.lock"
# A model's runtime, data frames and clusters are many megabytes, and little of the code.
NOT_TESTED_AT_THEIR_LOWEST = {"local", "pandas", "polars", "ray"}


def pins(lock: Path) -> dict[str, set[Version]]:
    """Versions by name; several where they depend on the Python version."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(Version(version))
    return found


def required(*groups: str) -> Iterator[Requirement]:
    """What users need, extras included, and what dependency groups name."""
    extras = [text for name, texts in EXTRAS.items() if name not in NOT_TESTED_AT_THEIR_LOWEST for text in texts]
    named = [text for group in groups for text in PROJECT["dependency-groups"][group] if isinstance(text, str)]
    yield from map(Requirement, [*PROJECT["project"]["dependencies"], *extras, *named])


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = [part.version for part in requirement.specifier if part.operator == ">="]
    return Version(bound)


@pytest.mark.parametrize("requirement", [*required("tests")], ids=str)
def test_lowest_versions_are_the_bounds(requirement: Requirement) -> None:
    (pinned,) = pins(LOWEST)[requirement.name.lower()]
    bound = lower_bound(requirement)
    # A bound of two numbers may be met first by a version of three.
    assert pinned.release[: len(bound.release)] == bound.release


@pytest.mark.parametrize("requirement", [*required("tests", "dev")], ids=str)
def test_newest_versions_fit_the_bounds(requirement: Requirement) -> None:
    for version in pins(NEWEST).get(requirement.name.lower(), ()):
        assert version in requirement.specifier


@pytest.mark.parametrize("group", ["tests", "dev"])
def test_what_tests_need_is_locked(group: str) -> None:
    locked = pins(NEWEST)
    assert [str(requirement) for requirement in required(group) if requirement.name.lower() not in locked and requirement.name != "tiktoken"] == []  # fmt: skip


@pytest.mark.parametrize("lock", [LOWEST, NEWEST], ids=lambda path: path.name)
def test_every_locked_file_has_its_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
