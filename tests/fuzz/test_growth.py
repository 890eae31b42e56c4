"""Work grows with the input's length, not with its square: a long input of any shape is no way to stop a run."""

import random
import time
import warnings

import pytest

from tests.fuzz.targets import TARGETS, Target, kept

_SHORT_BYTES, _LONG_BYTES = 4 << 10, 32 << 10
# Eight times the length takes eight times the work, 64 times where it grows with the square.
_MOST_GROWTH = 36
_NO_MATTER_S = 0.1
_TRIES = 12
_MORE_WORDS = [bytes([byte]) for byte in b'9 a["\\{:-\n\t.']
# A template's loops and a schema's patterns take what their author wants; YAML and .env are read by others' code.
_NAMES = [name for name in TARGETS if name not in ("template", "schemas", "job", "scenario", "env-file")]


def _cpu_s(target: Target, data: bytes) -> float:
    """Seconds of this thread's processor time, which other processes do not lengthen; the least of a few."""
    taken = []
    for _ in range(3):
        start = time.thread_time()
        target(data)
        taken.append(time.thread_time() - start)
        if taken[-1] < _NO_MATTER_S:
            break
    return min(taken)


@pytest.mark.parametrize("name", _NAMES)
def test_repeated_stretch_costs_no_more_than_its_length(name: str) -> None:
    """A word repeated in the midst of a kept example, or between two other words."""
    target, words = TARGETS[name]
    chance = random.Random(name)
    seeds = [path.read_bytes()[:2048] for path in kept(name, "corpus")]
    for _ in range(_TRIES // 3 if name.startswith("journal") else _TRIES):  # those wait for the disk
        seed, word = chance.choice(seeds), chance.choice([*words, *_MORE_WORDS])
        at = chance.randrange(len(seed) + 1)
        around = (seed[:at], seed[at:]) if chance.random() < 0.5 else (chance.choice(words), chance.choice(words))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            long = _cpu_s(target, around[0] + word * (_LONG_BYTES // len(word)) + around[1])
            if long < _NO_MATTER_S:
                continue
            short = _cpu_s(target, around[0] + word * (_SHORT_BYTES // len(word)) + around[1])
        assert long < _MOST_GROWTH * max(short, 0.001), f"{short:.4f} s, then {long:.3f} s: {word!r} in {around!r}"
