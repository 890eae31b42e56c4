"""Targets for results files that a run opens: tails cut, garbled, zeroed, repeated, compressed or not."""

from collections.abc import Callable
from pathlib import Path

from batchchat.errors import ResultsFileError
from batchchat.jsonl import dump_line, parse_object
from batchchat.results import open_journal, outcome_from_object, outcome_to_batch_object, outcome_to_object, run_files
from batchchat.results.codec import iter_decoded
from batchchat.results.lines import Form
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.status import read_status
from tests.fuzz.checks import check_message, check_refusal, folder, strict_object
from tests.fuzz.oracles import members


def _target(ending: str, form: Form) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        with folder() as place:
            _check_journal(place / f"results.jsonl{ending}", data, form)

    target.__doc__ = f"A results file of the form {form}{' ending in ' + ending if ending else ''}."
    return target


journal = _target("", "flat")
journal_batch = _target("", "openai-batch")
journal_gz = _target(".gz", "flat")
journal_zst = _target(".zst", "flat")


def _check_journal(path: Path, data: bytes, form: Form) -> None:
    path.write_bytes(data)
    files = run_files(str(path))
    kind = path.suffix[1:] if path.suffix in (".gz", ".zst") else None
    try:
        journal = open_journal(files, form=form)
    except ResultsFileError as error:
        check_refusal(error)
        assert path.read_bytes() == data, "a file that is refused must stay as it is"
        return
    journal.close()
    for repair in journal.repairs:
        check_message(repair.sentence(files))
    content = _content(path, kind)
    stored = _answers(content)
    assert len(stored) == len(journal.completed), "another number of answers than the file holds"
    assert len({(type(each).__name__, each) for each in stored}) == len(stored), "two lines for one id"
    assert all(each in journal.completed for each in stored)
    # Nothing is destroyed: what is not in the results any more is in the torn file.
    torn = Path(files.torn or "").read_bytes() if files.torn and Path(files.torn).exists() else b""
    before = data if kind is None else members(data, kind)
    for line in (before or b"").split(b"\n"):
        core = line.strip(b"\0\r \t")
        assert core in content or core in torn, f"lost: {core[:200]!r}"
    again = open_journal(files, form=form)
    again.close()
    assert again.repairs == [], "it was not mended at once"
    assert _content(path, kind) == content
    read_status(files)


def _content(path: Path, kind: str | None) -> bytes:
    with open(path, "rb") as stream:
        pieces = iter_decoded(stream.fileno(), kind, end=path.stat().st_size)  # type: ignore[arg-type]
        return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _answers(content: bytes) -> list[str | int]:
    """Ids of all lines, each of which must be an answer or blank."""
    found: list[str | int] = []
    for line in iter_raw_lines([content]):
        assert isinstance(line, RawLine)
        assert line.ended, "no line end"
        judged = judge(line)
        if judged.kind == "blank":
            continue
        assert judged.kind == "answer", judged.kind
        assert judged.stored is not None
        assert b"\0" not in line.data
        if line.data.isascii() and line.number > 1:
            strict_object(line.data + b"\n")
        found.append(judged.stored.id)
    return found


def stored(data: bytes) -> None:
    """Any line as a stored result: it is none, or the outcome that it tells of can be written again in both forms."""
    try:
        outcome = outcome_from_object(parse_object(data))
    except ValueError:
        return
    completion = outcome.completion
    if completion is not None and completion.text is None and not completion.tool_calls:
        return  # a batch line of another writer that says no more than that all went well
    for made in (outcome_to_object(outcome), outcome_to_batch_object(outcome)):
        again = outcome_from_object(strict_object(dump_line(made)))
        assert again.id == outcome.id
        assert again.status == outcome.status
        assert (again.completion is None) == (outcome.completion is None)
        # The batch form has no text but those of its choices.
        if outcome.completion is not None and again.completion is not None and outcome.completion.choices is None:
            assert again.completion.text == outcome.completion.text
