"""What must hold for everything that is parsed, whatever the bytes were."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from batchchat.errors import ConfigError, PromptFileError, ProviderError
from batchchat.jsonl import MAX_INPUT_DEPTH, dump_line, nested_within, parse_object
from batchchat.one_line import MOST_MESSAGE_CHARS
from batchchat.records import Completion, Failure, Outcome
from batchchat.results import outcome_from_object, outcome_to_batch_object, outcome_to_object
from tests.result_lines import answered

SECRET = "sk-fuzz-4b1d0c3a9e"
# Escapes may make a message longer than its bound, by a factor of six at most.
_MOST_CHARS = 6 * MOST_MESSAGE_CHARS
_MOST_WAIT_S = 100 * 366 * 86400.0
_SPOILING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_message(text: str) -> None:
    """One line of bounded length for a terminal, a log or an error line: no control characters, valid text."""
    assert text, "an empty message"
    assert len(text) <= _MOST_CHARS, f"a message of {len(text)} characters: {text[:200]!r}"
    spoiling = _SPOILING.search(text)
    assert spoiling is None, f"{spoiling[0]!r} in {text!r}"
    text.encode()


def check_refusal(error: Exception) -> None:
    """An error of ours that reaches the user, with a message fit for that."""
    check_message(str(error))
    assert SECRET not in str(error)
    if isinstance(error, PromptFileError | ConfigError):
        line = error.line_number if isinstance(error, PromptFileError) else error.line
        assert line is None or line >= 1


def check_wait(seconds: float | None) -> None:
    """Nothing to wait, or a number of seconds that a timer takes."""
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= _MOST_WAIT_S), seconds


def check_failure(error: ProviderError) -> None:
    """A failed attempt that can become an error line."""
    check_message(error.message)
    check_wait(error.retry_after_s)
    assert error.status is None or 100 <= error.status <= 599
    _check_line(Outcome(id="q", index=0, error=Failure.from_error(error), line={"prompt": "hi"}))


def check_completion(completion: Completion) -> None:
    """An answer that can become a result line and is read back as it is."""
    assert completion.tool_calls or (completion.text or "").strip()
    _check_line(answered("q", completion=completion))


def _check_line(outcome: Outcome) -> None:
    for made in (outcome_to_object(outcome), outcome_to_batch_object(outcome)):
        obj = strict_object(dump_line(made))
        stored = outcome_from_object(obj)
        assert stored.id == outcome.id
        if outcome.completion is not None:
            assert stored.completion is not None
            assert stored.completion.text == outcome.completion.text
            assert stored.completion.usage == outcome.completion.usage
            assert stored.completion.finish_reason == outcome.completion.finish_reason
            assert stored.completion.choices == outcome.completion.choices
        else:
            assert stored.error == outcome.error


def strict_object(line: bytes) -> dict[str, Any]:
    """The object of one result line, which must be one physical line of strict JSON for every reader."""
    assert line.endswith(b"\n")
    text = line[:-1].decode()
    assert len(text.splitlines()) == 1
    loaded = parse_object(line[:-1])
    # The standard library reads no longer integers and no deeper nesting.
    if nested_within(loaded, 2 * MAX_INPUT_DEPTH - 200) and len(max(text.replace("-", "").split(","), key=len)) < 4000:
        json.loads(text, parse_constant=_refuse)
    return loaded


def _refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that goes away again."""
    path = Path(tempfile.mkdtemp(prefix="batchchat-fuzz-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def split(data: bytes, *, most: int) -> list[bytes]:
    """Parts of one example at its zero bytes, so that one target can take several inputs."""
    parts = data.split(b"\0", most - 1)
    return parts + [b""] * (most - len(parts))
