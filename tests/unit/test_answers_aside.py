"""What keeps answers aside: closed, it opens nothing any more, though a thread is still at it."""

import pytest

from batchchat.ray.sharing import Sharing
from batchchat.records import Completion, Outcome, Prompt
from batchchat.shared_answers import AnswerStore


def answer(n: int) -> Outcome:
    return Outcome(id=n, index=n, completion=Completion(text="an answer"), fingerprint=f"{n:016x}", line={})


def test_a_closed_store_keeps_and_gives_nothing() -> None:
    store = AnswerStore()
    store.add(answer(1))
    assert store.get(f"{1:016x}") is not None
    store.close()
    store.add(answer(2))
    assert len(store) == 1
    assert store.get(f"{1:016x}") is None


def test_a_store_closed_before_its_first_answer_makes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnswerStore()
    store.close()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_: pytest.fail("a file nobody closes"))
    store.add(answer(1))


def test_prompts_that_come_after_the_end_are_not_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads the input goes on for a moment."""
    with AnswerStore() as store:
        sharing = Sharing(store, None, dedup=True)
        sharing.close()
        monkeypatch.setattr("tempfile.TemporaryFile", lambda *_: pytest.fail("a file nobody closes"))
        prompt = Prompt(id=1, index=0, line_number=1, messages=[], line={})
        assert list(sharing.left([(prompt, "a"), (prompt, "a")])) == [(prompt, "a")]
