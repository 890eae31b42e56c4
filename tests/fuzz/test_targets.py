"""Every target on its kept examples, and on bytes put together at random; ``make fuzz`` looks further."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import FOLDER, TARGETS, kept

KEPT = [(name, kind, path) for name in TARGETS for kind in ("corpus", "findings") for path in kept(name, kind)]
# jmespath tells of literals that it will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
# Files and locks cost more than parsing.
_EXAMPLES = 60
_SLOW = ("journal", "journal-batch", "journal-gz", "journal-zst", "job", "options")


@pytest.mark.parametrize(("name", "path"), [pytest.param(n, p, id=f"{n}-{k}-{p.name}") for n, k, p in KEPT])
def test_kept_example_holds(name: str, path: Path) -> None:
    TARGETS[name].target(path.read_bytes())


def test_every_target_has_a_corpus_and_every_folder_a_target() -> None:
    for kind in ("corpus", "findings"):
        folders = {path.name for path in (FOLDER / kind).iterdir() if path.is_dir()}
        assert folders <= set(TARGETS)
    assert {name for name, kind, _ in KEPT if kind == "corpus"} == set(TARGETS)


def _examples(name: str) -> st.SearchStrategy[bytes]:
    """Words of the target put together, kept examples with a stretch replaced, and any bytes."""
    words = st.lists(st.sampled_from(TARGETS[name].words), max_size=12).map(b"".join)
    seeds = st.sampled_from([path.read_bytes()[:4096] for path in kept(name, "corpus")])
    pieces = st.one_of(st.binary(max_size=8), st.sampled_from(TARGETS[name].words))

    def replaced(seed: bytes) -> st.SearchStrategy[bytes]:
        place = st.integers(0, len(seed))
        return st.builds(lambda at, to, piece: seed[:at] + piece + seed[max(at, to) :], place, place, pieces)

    return st.one_of(words, seeds.flatmap(replaced), st.binary(max_size=64))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(deadline=None, max_examples=_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_hold(name: str, data: st.DataObject) -> None:
    TARGETS[name].target(data.draw(_examples(name)))
