"""One try of a fault: a folder, a server, the runs against it, and the judgement from three sides."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.result_files import Answers, read_answers, read_objects
from tests.chaos.server_log import ServerLog, note_end_of_server
from tests.chaos.verdict import Verdict
from tests.priority import put_first

__all__ = ["RESUMABLE", "World"]

BATCHCHAT = [sys.executable, "-m", "batchchat"]
KEY = "sk-chaos-4d1f0c9be2a7"
RESUMABLE = {4, 5, 6, 130, 143}
_SERVER_S = 30.0


class World:
    """What a case works with.

    A case sets what it needs (``concurrency``, ``rates``, ``suffix``, ``options`` …), writes prompts, serves, runs,
    kills, and ends with ``finish``. Everything that goes against a promise lands in ``verdict``; nothing raises.

    Attributes:
        rng: The only source of chance.
        prompts: Text of each prompt, by id.
        options: Of every run of this world.
        rates: (count, seconds) pairs that the server must never see exceeded.
        environ: Of every run; its HOME and caches are in ``folder``.
        stale: Answers to prompts as they were before they changed, by id; they may stand in the results until the end.
        mending: Whether lines that are none are to be expected, as the case made them and no run came to its end since.
        saved: Answers that stood in the results at some moment, by id; they must never go away.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.rng = folder, seed, random.Random(seed)
        self.verdict = Verdict(tries=1)
        self.provider = self.rng.choice(["ai-engine", "openai"])
        self.concurrency, self.suffix, self.form = 8, ".jsonl", "flat"
        self.rates: list[tuple[int, float]] = []
        self.options: list[str] = []
        self.prompts: dict[str, str] = {}
        self.base_url = ""
        self.logs: list[Path] = []
        self.stale: dict[str, str] = {}
        self.mending = False
        self.saved: dict[str, str | None] = {}
        self.in_flight_when_killed: Counter[str] = Counter()
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ},
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OPENAI_API_KEY": KEY,
            "BATCHCHAT_VERBOSE": "2" if seed % 2 else "0",
        }
        self.results_folder = folder
        self._runs = 0
        self._children: list[subprocess.Popen[bytes]] = []
        self._log_of: dict[int, Path] = {}

    # What is there before the fault.

    @property
    def input(self) -> Path:
        return self.folder / "prompts.jsonl"

    @property
    def results(self) -> Path:
        return self.results_folder / f"results{self.suffix}"

    def beside(self, ending: str) -> Path:
        """A file beside the results: ``.errors.jsonl``, ``.run.json``, ``.torn``."""
        return self.results_folder / f"results{ending}"

    def write_prompts(self, count: int, *, words: int = 0) -> None:
        """``count`` prompts with texts of their own, each with ``words`` more words."""
        filler = " word" * words
        self.prompts = {f"q-{number}": f"question {number}{filler}" for number in range(count)}
        lines = (json.dumps({"id": key, "prompt": text}) for key, text in self.prompts.items())
        self.input.write_text("".join(f"{line}\n" for line in lines))

    @contextlib.contextmanager
    def serving(self, *, port: int = 0, **scenario: Any) -> Iterator[subprocess.Popen[bytes]]:
        """The development server as a child process, with scenario keys as given; sets ``base_url``."""
        process = self.start_server(port=port, **scenario)
        try:
            yield process
        finally:
            self.stop_server(process)

    def start_server(self, *, port: int = 0, **scenario: Any) -> subprocess.Popen[bytes]:
        """See ``serving``."""
        log = self.folder / f"server-{len(self.logs)}.log"
        self.logs.append(log)
        settings = [f"--set={key}={value}" for key, value in scenario.items()]
        command = [*BATCHCHAT, "serve", "--port", str(port), "--log", str(log), "--log-ends", *settings]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        put_first(process.pid)
        self._children.append(process)
        self._log_of[process.pid] = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the development server did not start"
        self.base_url = json.loads(line)["base_url"]
        return process

    def stop_server(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
        """Ends the server; SIGKILL makes it a crash."""
        process.send_signal(number)
        process.wait(_SERVER_S)
        note_end_of_server(self._log_of[process.pid])
        if process.stdout is not None:
            process.stdout.close()

    # Runs.

    def command(self, *more: str) -> list[str]:
        """The command line of a run."""
        output = [] if "-o" in more else ["-o", str(self.results)]
        model = ["--model", "m"] if self.provider == "openai" else []
        form = ["--format", self.form] if self.form != "flat" else []
        rates = [part for count, seconds in self.rates for part in ("--rate", _rate(count, seconds))]
        return [
            *BATCHCHAT,
            "run",
            str(self.input),
            *output,
            "--provider",
            self.provider,
            "--base-url",
            self.base_url,
            *model,
            *form,
            *rates,
            "--concurrency",
            str(self.concurrency),
            *self.options,
            *more,
        ]

    def start(self, *more: str, environ: dict[str, str] | None = None, **popen: Any) -> subprocess.Popen[bytes]:
        """Starts a run in a process group of its own; what it says goes to ``run-N.out`` and ``run-N.err``."""
        return self.start_command(self.command(*more), environ=environ, **popen)

    def start_command(
        self, command: list[str], *, environ: dict[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[bytes]:
        """Starts any command as a run; see ``start``."""
        self._runs += 1
        self.verdict.runs += 1
        name = f"run-{self._runs}"
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **popen}
            process = subprocess.Popen(
                command, env={**self.environ, **(environ or {})}, start_new_session=True, **settings
            )
        process.args = name  # where its output is
        self._children.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """Standard error of a run so far."""
        return (self.folder / f"{process.args!s}.err").read_text(errors="replace")

    def printed(self, process: subprocess.Popen[bytes]) -> bytes:
        """Standard output of a run so far."""
        return (self.folder / f"{process.args!s}.out").read_bytes()

    def end(
        self, process: subprocess.Popen[bytes], codes: set[int], *, within_s: float = 60, resumes: bool = True
    ) -> int:
        """Waits for a run that ends by itself and judges its exit code, its words and its files.

        Args:
            codes: Exit codes that are right.
            resumes: Whether the run has to tell how to resume, where it ends early; not where it never began.
        """
        try:
            code = process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.verdict.blame("overdue", f"{process.args} still ran after {within_s:g} s: {self.said(process)[-300:]}")
            self._kill_group(process)
            process.wait()
            self.look()
            return process.returncode
        said = self.said(process)
        if code not in codes:
            self.verdict.blame("wrong_exit", f"{process.args} ended with {code}, not {codes}: {said[-500:]}")
        if "Traceback" in said:
            self.verdict.blame("wrong", f"{process.args} printed a traceback: {said[-800:]}")
        resumable = resumes and code in RESUMABLE and "-q" not in self.options
        if resumable and "to resume:" not in said and self._has_pending():
            self.verdict.blame("wrong", f"{process.args} ended with {code} and told no command that resumes")
        self.look()
        return code

    def run(
        self,
        *more: str,
        codes: frozenset[int] | set[int] = frozenset({0}),
        within_s: float = 60,
        resumes: bool = True,
        **how: Any,
    ) -> int:
        """A run from its start to its end; see ``start`` and ``end``."""
        return self.end(self.start(*more, **how), set(codes), within_s=within_s, resumes=resumes)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, at once; what was in flight may be asked again, and nothing else."""
        self._kill_group(process)
        process.wait()
        self.note_death()

    def note_death(self) -> None:
        """Judges what a run that died without a word has left: only what was in flight may be missing."""
        self._wait_for_quiet_server()
        answers = self.look()
        known = self._texts_of(answers)
        delivered = self.log().delivered()
        missing = [text for text in self.prompts.values() if text not in known]
        gone = [text for text in missing if delivered[text] > self.in_flight_when_killed[text]]
        self.verdict.blame(
            "lost",
            f"{len(gone)} answers that had arrived are gone, more than {self.most_in_flight} in flight",
            max(0, len(gone) - self.most_in_flight),
        )
        self.in_flight_when_killed.update(gone)

    @property
    def most_in_flight(self) -> int:
        """Answers that a death may cost: with ``--order input`` those that wait for their turn too, as documented."""
        return self.concurrency * (3 if "input" in self.options else 1)

    def wait_for_chats(self, count: int, process: subprocess.Popen[bytes] | None = None, within_s: float = 30) -> bool:
        """Waits until the servers have met so many chats in all, or the process has ended; whether they have."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            if sum(_count(log, b'"kind": "chat"') for log in self.logs) >= count:
                return True
            if process is not None and process.poll() is not None:
                return False
            time.sleep(0.003)
        return False

    def wait_until_said(self, process: subprocess.Popen[bytes], words: str, within_s: float = 30) -> bool:
        """Waits until the run has printed the words on standard error, or has ended; whether it has."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            if words in self.said(process):
                return True
            if process.poll() is not None:
                return words in self.said(process)
            time.sleep(0.005)
        return False

    # Judgement.

    def log(self) -> ServerLog:
        """What all servers of this world have seen so far."""
        return ServerLog.read(self.logs)

    def expected(self, text: str) -> str:
        """The right answer to a prompt's text."""
        return f"Echo: {text}"

    def look(self) -> Answers:
        """Judges the results file as it is now; answers that it held before must still be there."""
        answers = read_answers(self.results)
        for fault in () if self.mending else answers.faults:
            self.verdict.blame("wrong", fault)
        self.verdict.blame("duplicated", f"{answers.duplicates} lines too many", answers.duplicates)
        foreign = [key for key in answers.texts if key not in self.prompts]
        self.verdict.blame("wrong", f"no prompts: {foreign[:3]}", len(foreign))
        wrong = [key for key, texts in answers.texts.items() if key in self.prompts and not self._right(key, texts)]
        shown = [(key, f"{answers.texts[key][0]!r:.80}") for key in wrong[:3]]
        self.verdict.blame("wrong", f"not their answers: {shown}", len(wrong))
        gone = [key for key in self.saved if key not in answers.texts]
        self.verdict.blame("lost", f"{len(gone)} stored answers went away, such as {gone[:3]}", len(gone))
        self.saved = {key: texts[0] for key, texts in answers.texts.items() if texts[0] != self.stale.get(key)}
        return answers

    def _right(self, key: str, texts: list[str | None]) -> bool:
        return all(text in (self.expected(self.prompts[key]), self.stale.get(key)) for text in texts)

    def forget(self, *keys: str) -> None:
        """The case itself takes these answers out of the results; they may be asked again, and no others."""
        for key in keys:
            self.saved.pop(key, None)
            self.in_flight_when_killed[self.prompts[key]] += 1

    def finish(self, *more: str, codes: frozenset[int] | set[int] = frozenset({0}), within_s: float = 60) -> None:
        """The same command once more, to the end: then every prompt has exactly one right line."""
        process = self.start(*more)
        self.mending = False
        self.end(process, set(codes), within_s=within_s)
        self.judge()

    def judge(self, *, failed: frozenset[str] | set[str] = frozenset()) -> None:
        """Judges a job that is done: all answered but the ids in ``failed``, which stand in the errors file."""
        answers = self.look()
        self.verdict.blame("wrong", f"{answers.torn} torn bytes at the end of the results", int(answers.torn > 0))
        missing = [key for key in self.prompts if key not in answers.texts and key not in failed]
        self.verdict.blame("lost", f"{len(missing)} prompts have no line, such as {missing[:3]}", len(missing))
        self.judge_errors(set(failed))
        self.judge_summary(len(answers.texts), len(failed))
        self.judge_server()

    def judge_errors(self, failed: set[str]) -> None:
        """The errors file holds just these ids."""
        path = self.beside(".errors.jsonl")
        if not path.exists():
            self.verdict.blame("wrong", "there is no errors file")
            return
        try:
            found = Counter(told.get("custom_id", told.get("id")) for told in read_objects(path))
        except ValueError as error:
            self.verdict.blame("wrong", f"the errors file is torn: {error}")
            return
        if found != Counter(failed):
            self.verdict.blame("wrong", f"the errors file holds {sorted(found)[:5]}, not {sorted(failed)[:5]}")

    def judge_summary(self, answered: int, failed: int) -> None:
        """The summary tells the same counts as the files."""
        try:
            told = json.loads(self.beside(".run.json").read_bytes())
        except (OSError, ValueError) as error:
            self.verdict.blame("wrong", f"the summary cannot be read: {error}")
            return
        counts = (told.get("answered_before", 0) + told.get("answered", 0), told.get("failed", 0))
        if counts != (answered, failed):
            self.verdict.blame("wrong", f"the summary counts {counts} answered and failed, not {(answered, failed)}")

    def judge_server(self) -> None:
        """What the server saw: no answer paid for twice but what was in flight at a death, and no limit broken."""
        log = self.log()
        for text, paid in log.delivered().items():
            again, allowed = paid - 1, self.in_flight_when_killed[text]
            self.verdict.asked_twice += min(again, allowed)
            self.verdict.blame("asked_twice_beyond", f"{text!r:.40} was answered {paid} times", max(0, again - allowed))
        for count, seconds in self.rates:
            worst = log.worst_window(seconds)
            note = f"{worst} requests within {seconds:g} s, {count} are allowed"
            self.verdict.blame("limit_broken", note, max(0, worst - count))
        peak = log.peak_in_flight()
        note = f"{peak} requests at a time, {self.concurrency} are allowed"
        self.verdict.blame("limit_broken", note, max(0, peak - self.concurrency))

    def judge_secrets(self) -> None:
        """Neither the key nor a nonce stands in anything that a run wrote or said but the cache, which is 0600."""
        nonces = {request.get("nonce") for request in self.log().requests}
        secrets = [KEY, *(nonce for nonce in nonces if nonce and len(nonce) >= 8)]
        for path in self.folder.rglob("*"):
            if path.is_symlink() or not path.is_file() or path in self.logs or path.name == "trace":
                continue
            cached = (self.folder / "cache") in path.parents
            if cached and path.stat().st_mode & 0o077:
                self.verdict.blame("wrong", f"{path} can be read by others")
            data = b"" if cached else path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in data]
            self.verdict.blame("wrong", f"{path} holds {found[:2]}", len(found))

    def close(self) -> None:
        """Ends whatever still runs."""
        for process in self._children:
            if process.poll() is None:
                self._kill_group(process)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _texts_of(self, answers: Answers) -> set[str]:
        return {self.prompts[key] for key in answers.texts if key in self.prompts}

    def _wait_for_quiet_server(self, within_s: float = 5) -> None:
        """Waits until the server has noticed that its client is gone."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            log = self.log()
            if len(log.ends) >= len(log.requests):
                return
            time.sleep(0.01)

    def _has_pending(self) -> bool:
        """Whether the last run left anything that a next one would send, as far as its summary tells."""
        try:
            return json.loads(self.beside(".run.json").read_bytes()).get("pending") != 0
        except (OSError, ValueError):
            return True

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def _rate(count: int, seconds: float) -> str:
    return f"{count}/{ {1: 's', 60: 'min', 3600: 'h', 86400: 'd'}[int(seconds)] }"


def _count(path: Path, words: bytes) -> int:
    return path.read_bytes().count(words) if path.exists() else 0
