"""Coverage-guided fuzzing of the targets: ``python -m tests.fuzz [--seconds N] [TARGET…]``; see docs/testing.md."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_MEMORY = "/dev/shm"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="names of targets; all without any")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return _fuzz(options.one, options.seconds)
    from tests.fuzz.targets import TARGETS

    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"found {unknown[0]!r}, expected targets of {', '.join(TARGETS)}")
    failed = [name for name in options.targets or TARGETS if not _run(name, options.seconds)]
    print(f"crashes of {', '.join(failed)}: see tests/fuzz/findings" if failed else "no crashes", flush=True)
    return 1 if failed else 0


def _run(name: str, seconds: int) -> bool:
    """Fuzzes one target in a process of its own, as libFuzzer ends the process it runs in."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--seconds", str(seconds)]
    return subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "0"}, check=False).returncode == 0


def _fuzz(name: str, seconds: int) -> int:
    try:
        import atheris
    except ImportError:
        print("make fuzz needs atheris, which there is for Linux on x86-64 and Python up to 3.13", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["batchchat"]):
        from tests.fuzz.targets import FOLDER, TARGETS
    if os.path.isdir(_MEMORY) and os.access(_MEMORY, os.W_OK):
        tempfile.tempdir = _MEMORY  # so that a disk's fsync does not set the pace
    words, target = TARGETS[name].words, TARGETS[name].target
    findings = FOLDER / "findings" / name
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"batchchat-fuzz-{name}-") as scratch:
        dictionary = Path(scratch) / "words"
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
        grown = Path(scratch) / "grown"
        grown.mkdir()
        flags = [
            f"-max_total_time={seconds}",
            f"-dict={dictionary}",
            f"-artifact_prefix={findings}/",
            "-max_len=4096",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        # What is found of new ways goes to the first folder, the kept examples stay as they are.
        atheris.Setup([sys.argv[0], *flags, str(grown), str(FOLDER / "corpus" / name)], target)
        atheris.Fuzz()
    return 0


def _escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries spell any byte."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
