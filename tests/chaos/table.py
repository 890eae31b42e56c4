"""The table of docs/reliability.md, written by the suite from what it counted."""

import re
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

from tests.chaos.registry import GROUPS, Case
from tests.chaos.suite import Tried
from tests.chaos.verdict import Verdict

__all__ = ["PAGE", "update_rows", "write_table"]

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- figures: written by `make chaos` -->", "<!-- end of figures -->"
_HEAD = (
    "| fault | tried | runs | asked twice | lost | duplicated | wrong | asked twice beyond | limit broken | wrong exit | overdue |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def write_table(cases: Sequence[Case], done: Sequence[Tried], *, seed: int, seconds: float) -> None:
    """Puts the figures between the page's two marks."""
    text = PAGE.read_text()
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    lines = [f"{_BEGIN}\n"]
    whole = Verdict()
    for group in GROUPS:
        rows = [_sum(each, done) for each in cases if each.group == group]
        if rows:
            lines += ["", f"### {group.capitalize()}", "", *_HEAD, *(row for row, _ in rows)]
            whole = reduce(add, (verdict for _, verdict in rows), whole)
    tries = sum(tried.unavailable is None for tried in done)
    lines += [
        "",
        "### All together",
        "",
        *_HEAD,
        _row(f"{len(cases)} faults", whole),
        "",
        f"Seed {seed}, {tries} worlds, {seconds:.0f} s.",
        "",
    ]
    PAGE.write_text(before + "\n".join(lines) + _END + after)


def update_rows(cases: Sequence[Case], done: Sequence[Tried]) -> None:
    """Puts the figures of these cases in the place of their rows, and adds all rows up anew."""
    lines = PAGE.read_text().split("\n")
    for case in cases:
        row, _ = _sum(case, done)
        [at] = [number for number, line in enumerate(lines) if line.startswith(f"| {case.fault} |")]
        lines[at] = row
    [last] = [number for number, line in enumerate(lines) if re.match(r"\| \d+ faults \|", line)]
    rows = (_counts(line) for line in lines[lines.index(_BEGIN) : last])
    whole = [sum(column) for column in zip(*(row for row in rows if row), strict=True)]
    fault = lines[last].split("|")[1].strip()
    lines[last] = f"| {fault} | {' | '.join(f'{count:,}' for count in whole)} |"
    PAGE.write_text("\n".join(lines))


def _counts(line: str) -> list[int]:
    """The counts of a row; empty for every other line, and for a fault that cannot be made here."""
    cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")][-10:]
    return [int(cell) for cell in cells] if len(cells) == 10 and all(cell.isdigit() for cell in cells) else []


def _sum(case: Case, done: Sequence[Tried]) -> tuple[str, Verdict]:
    mine = [tried for tried in done if tried.case == case.name]
    made = [tried.verdict for tried in mine if tried.unavailable is None]
    if not made:
        why = next((tried.unavailable for tried in mine), "not run")
        return f"| {case.fault} | not here: {why} |{' |' * 9}", Verdict()
    verdict = reduce(add, made)
    return _row(case.fault, verdict), verdict


def _row(fault: str, verdict: Verdict) -> str:
    counts = (
        verdict.tries,
        verdict.runs,
        verdict.asked_twice,
        verdict.lost,
        verdict.duplicated,
        verdict.wrong,
        verdict.asked_twice_beyond,
        verdict.limit_broken,
        verdict.wrong_exit,
        verdict.overdue,
    )
    return f"| {fault} | {' | '.join(f'{count:,}' for count in counts)} |"
