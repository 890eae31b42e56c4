"""A slice of the chaos suite: each fault a few times, so that a change that breaks a promise is seen at once."""

import pytest

from tests.chaos.registry import Case, all_cases
from tests.chaos.suite import seed_of, try_case

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

SLICE = [
    pytest.param(case, number, id=f"{case.name}-{number}", marks=pytest.mark.clocked if case.limits else ())
    for case in all_cases()
    for number in range(case.in_test)
]


@pytest.mark.parametrize(("case", "number"), SLICE)
def test_fault_breaks_no_promise(case: Case, number: int) -> None:
    tried = try_case(case, seed_of(1, case.name, number))
    if tried.unavailable is not None:
        pytest.skip(tried.unavailable)
    assert not tried.verdict.failed, (tried.folder, tried.verdict.notes)
