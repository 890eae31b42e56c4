"""Python's search for garbage is put off while the command line starts, and nowhere else."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from batchchat.garbage import put_off_collecting, settle_for_a_run


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before, turn_s = gc.get_threshold(), sys.getswitchinterval()
    yield
    sys.setswitchinterval(turn_s)
    gc.unfreeze()
    gc.set_threshold(*before)


def test_a_run_begins_with_thresholds_of_the_usual_kind() -> None:
    """What was put off comes back, and cycles are collected again before they are many."""
    usual = gc.get_threshold()
    put_off_collecting()
    assert gc.isenabled()
    assert gc.get_threshold()[0] > usual[0]
    settle_for_a_run()
    assert gc.isenabled()
    assert gc.get_threshold()[0] <= 10_000
    assert gc.get_threshold()[1:] == usual[1:]


def test_what_a_start_left_is_not_looked_through() -> None:
    """Frozen objects are none of the collector's any more, new ones are."""
    put_off_collecting()
    settle_for_a_run()
    assert gc.get_freeze_count() > 1000
    cycle: list[object] = []
    cycle.append(cycle)
    assert any(found is cycle for found in gc.get_objects())


def test_a_program_that_imports_batchchat_keeps_its_own_way() -> None:
    """Only the command line's own process is changed."""
    code = (
        "import gc, sys; usual = gc.get_threshold(), sys.getswitchinterval(); "
        "import batchchat, batchchat.cli.run; batchchat.run_job, batchchat.stream; "
        "sys.exit((gc.get_threshold(), sys.getswitchinterval()) != usual or gc.get_freeze_count())"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0
