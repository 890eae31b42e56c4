"""``make chaos``: every fault as often as the table of docs/reliability.md says, which is written anew."""

import argparse
import sys
import time

from tests.chaos.registry import all_cases
from tests.chaos.suite import Tried, seed_of, try_case, try_cases
from tests.chaos.table import update_rows, write_table

_MOST_NOTES = 12
_ROW = "{mark} {case:<44} {seconds:6.1f} s  {note}"


def main() -> int:
    """Runs the suite; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("cases", nargs="*", help="names of cases or groups; all without one")
    parser.add_argument("--seed", type=int, default=1, help="seed of the suite (1)")
    parser.add_argument("--try-seed", type=int, help="do one try with this seed, as a failed one told it")
    parser.add_argument("--tries", type=int, help="tries of each case, in place of its own number")
    parser.add_argument("--at-a-time", type=int, help="tries at a time (twice the processors and one)")
    parser.add_argument(
        "--write", action="store_true", help="write the table of docs/reliability.md, or the rows of these cases"
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    chosen = parser.parse_args()
    cases = [each for each in all_cases() if not chosen.cases or {each.name, each.group} & set(chosen.cases)]
    if chosen.list:
        for each in cases:
            print(f"{each.group:<11} {each.name:<44} × {each.tries:<4} {each.fault}")
        return 0
    if not cases:
        parser.error(f"no case is called {chosen.cases}")
    began = time.monotonic()
    if chosen.try_seed is not None:
        done = [try_case(each, chosen.try_seed) for each in cases]
        for each in done:
            _tell(each)
    else:
        tries = [
            (each, seed_of(chosen.seed, each.name, number))
            for each in sorted(cases, key=lambda each: -each.within_s)
            for number in range(chosen.tries or each.tries)
        ]
        done = try_cases(tries, at_a_time=chosen.at_a_time, told=_tell)
    seconds = time.monotonic() - began
    if chosen.write and chosen.cases:
        update_rows(cases, done)
    elif chosen.write:
        write_table(cases, done, seed=chosen.seed, seconds=seconds)
    failed = [each for each in done if each.verdict.failed]
    print(
        f"{len(done)} tries of {len(cases)} faults in {seconds:.0f} s: {len(done) - len(failed)} passed, {len(failed)} failed"
    )
    return 1 if failed else 0


def _tell(tried: Tried) -> None:
    mark = "FAILED" if tried.verdict.failed else "  n/a " if tried.unavailable else "    ok"
    note = tried.unavailable or f"{tried.verdict.runs} runs, {tried.verdict.asked_twice} asked twice"
    print(_ROW.format(mark=mark, case=tried.case, seconds=tried.seconds, note=note), flush=True)
    if tried.verdict.failed:
        for line in tried.verdict.notes[:_MOST_NOTES]:
            print(f"         {line}")
        if len(tried.verdict.notes) > _MOST_NOTES:
            print(f"         … and {len(tried.verdict.notes) - _MOST_NOTES} more")
        print(f"         again: make chaos CASE={tried.case} TRY_SEED={tried.seed}   files: {tried.folder}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
