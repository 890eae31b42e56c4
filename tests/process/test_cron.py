"""Runs as cron and systemd start them: no terminal, no HOME, no locale, closed streams, and several at a time."""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchchat.cli.run import command as run_command
from batchchat.config import load_job
from tests.runs import (
    BATCHCHAT,
    Server,
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run_arguments,
    serving,
    start_command,
    write_prompts,
)

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
CRON, SYSTEMD = ROOT / "jobs" / "cron", ROOT / "jobs" / "systemd"
COUNT = 6
# What cron, and what is worse than cron, leave of an environment.
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "cron": {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LANG": "C"},
    "no such locale": {"PATH": "/usr/bin:/bin", "LANG": "xx_YY.UTF-9", "LC_ALL": "xx_YY.UTF-9"},
    "no such home": {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "POSIX"},
    "empty home": {"PATH": "", "HOME": "", "USER": "", "TMPDIR": "/nonexistent"},
    "cache that is no folder": {"XDG_CACHE_HOME": "/dev/null/cache", "HOME": "/dev/null"},
    "cache that is read-only": {"XDG_CACHE_HOME": "/proc/1", "HOME": "/proc/1"},
    "a terminal's leftovers": {"TERM": "xterm-256color", "COLUMNS": "0", "LINES": "x"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that need no scenario; what a test asked is the difference."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


def cron_run(server: Server, folder: Path, *more: str) -> list[str]:
    prompts = folder / "p.jsonl"
    prompts.write_text(
        "".join(f'{{"id": "q-{n}", "prompt": "Grüße 🎉 {n}"}}\n' for n in range(COUNT)), encoding="utf-8"
    )
    return run_arguments(server, prompts, folder / "r.jsonl", *more)


def assert_done(folder: Path) -> None:
    lines = read_lines(folder / "r.jsonl")
    assert sorted(line["response"] for line in lines) == sorted(f"Echo: Grüße 🎉 {n}" for n in range(COUNT))


@pytest.mark.parametrize(("environment", "quiet"), [(name, bool(n % 2)) for n, name in enumerate(ENVIRONMENTS)])
def test_bare_environment_is_enough(tmp_path: Path, server: Server, environment: str, quiet: bool) -> None:
    before = len(server.chats())
    command = cron_run(server, tmp_path, *(["--quiet"] if quiet else ["-vv"]))
    code, out, err = finish(start_command(command, env=ENVIRONMENTS[environment], cwd="/", umask=0o077))
    assert len(server.chats()) == before + COUNT
    assert code == 0
    assert_done(tmp_path)
    assert out == ""
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert err == "" if quiet else f"{COUNT} answered" in err
    for name in ("r.jsonl", "r.errors.jsonl", "r.run.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-", "</dev/null >/dev/null 2>&1", "2>/dev/full", ">/dev/full 2>&-"])  # fmt: skip
def test_closed_streams_are_enough(tmp_path: Path, server: Server, closing: str) -> None:
    shell = f"{shlex.join(cron_run(server, tmp_path, '-v'))} {closing}"
    code, out, err = finish(start_command(["/bin/sh", "-c", shell], env={}, cwd="/"))
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert_done(tmp_path)


@pytest.mark.parametrize("form", ["text", "json"])
def test_messages_that_nobody_reads_hold_nothing_up(tmp_path: Path, server: Server, form: str) -> None:
    """A pipe takes 64 KiB, and then no more for as long as its reader sleeps."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(f'{{"id": "{"x" * 900}-{n}", "prompt": "question"}}\n' for n in range(200)))
    command = run_arguments(server, prompts, tmp_path / "r.jsonl", "-vv", "--log-format", form)
    process = start_command(command, env={}, cwd="/")
    try:
        code = process.wait(45)
        _, err = process.communicate()  # what the pipe held
    finally:
        process.kill()
    assert code == 0
    assert len(read_lines(tmp_path / "r.jsonl")) == 200
    assert 50_000 < len(err) <= 1 << 16
    if form == "json":
        assert all(json.loads(line)["event"] for line in err.splitlines())


def test_slow_reader_gets_every_line(tmp_path: Path, server: Server) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 1500)
    command = run_arguments(server, prompts, tmp_path / "r.jsonl", "-vv")
    process = start_command(command, env={}, cwd="/")
    lines = []
    while line := process.stderr.readline():
        lines.append(line)
        if len(lines) % 300 == 0:
            time.sleep(0.1)
    assert process.wait(45) == 0
    process.communicate()
    assert sum("answered after" in line for line in lines) == 1500
    assert all(line.startswith(("batchchat: ", " ")) for line in lines[:1500])


def test_readers_that_went_away_hold_nothing_up(tmp_path: Path, server: Server) -> None:
    process = start_command(cron_run(server, tmp_path, "-vv"), env={}, cwd="/")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(45) == 0
    assert_done(tmp_path)


def test_user_without_name_and_home_is_enough(tmp_path: Path, server: Server) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        pytest.skip("needs root and setpriv")
    # The interpreter may lie in root's home: reading is all that is left of root's rights.
    reading = "+dac_read_search"
    become = [setpriv, "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps", reading, "--ambient-caps", reading]  # fmt: skip
    if subprocess.run([*become, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("this machine lets nobody become another user")
    folder = tmp_path / "own"
    folder.mkdir()
    command = cron_run(server, folder, "--quiet")
    os.chown(folder, 54321, 54321)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    code, out, err = finish(start_command([*become, *command], env={"LANG": "C"}, cwd="/", umask=0o077))
    assert (code, out, err) == (0, "", "")
    assert_done(folder)
    assert (folder / "r.jsonl").stat().st_uid == 54321


def test_run_that_fails_says_so_in_plain_lines(tmp_path: Path) -> None:
    with serving(tmp_path, auth_refused=True) as server:
        command = cron_run(server, tmp_path, "--quiet", "--concurrency", "1")
        code, out, err = finish(start_command(command, env={"TERM": "xterm"}, cwd="/"))
    assert code == 4
    assert out == ""
    assert "\x1b" not in err
    assert err.count("stopping") == 1 or "batchchat:" in err


def test_runs_that_overlap_send_nothing_twice(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 12)
    with serving(tmp_path) as server:
        command = run_arguments(server, prompts, tmp_path / "r.jsonl", "--quiet", "--rate", "5/s")
        first = start_command(command, env={}, cwd="/")
        server.wait_for_chats(1)
        kill(first, signal.SIGSTOP)  # at work for as long as it takes
        for _ in range(4):
            code, out, err = finish(start_command(command, env={}, cwd="/"))
            assert (code, out) == (75, "")
            assert err.startswith("batchchat: ")
            assert err.count("\n") == 1
        kill(first, signal.SIGCONT)
        assert finish(first) == (0, "", "")
        assert finish(start_command(command, env={}, cwd="/")) == (0, "", "")
        assert set(server.asked().values()) == {1}
    assert_all_answered(tmp_path / "r.jsonl", range(12))


def crontab_lines() -> tuple[dict[str, str], list[str]]:
    """Variables and commands of the shipped crontab, as cron reads them."""
    variables, commands = {}, []
    for line in (CRON / "crontab").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if found := re.fullmatch(r"(\w+)=(.*)", line):
            variables[found[1]] = found[2]
        else:
            commands.append(line.split(None, 5)[5])
    return variables, commands


def project(folder: Path, base_url: str) -> Path:
    """``/srv/reviews`` as the shipped files expect it."""
    home = folder / "srv reviews"
    (home / ".venv" / "bin").mkdir(parents=True)
    shutil.copytree(ROOT / "jobs", home / "jobs")
    shutil.copytree(ROOT / "sample_inputs", home / "sample_inputs")
    job = home / "jobs" / "nightly.yaml"
    job.write_text(job.read_text().replace("10000/d", "10000/h"))  # a day's pace takes 8 s a prompt
    (home / ".env").write_text(f"BATCHCHAT_BASE_URL={base_url}\nREVIEWS_BOT=default\n")
    (home / ".env").chmod(0o600)
    program = home / ".venv" / "bin" / "batchchat"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(BATCHCHAT)} "$@"\n')
    program.chmod(0o755)
    return home


def cron(home: Path) -> tuple[int, str, str]:
    """Does what cron does with the shipped crontab, whose folder is ``home`` here."""
    variables, [command] = crontab_lines()
    environment = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "HOME": "/nonexistent", "LOGNAME": "x"}
    quoted = command.replace("/srv/reviews", str(home).replace(" ", "\\ "))
    environment |= {name: value.replace("/srv/reviews", str(home)) for name, value in variables.items()}
    return finish(start_command(["/bin/sh", "-c", quoted], env=environment, cwd="/"))


def test_shipped_crontab_is_silent_when_all_is_well(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        home = project(tmp_path, server.base_url)
        assert cron(home) == (0, "", "")
        asked = len(server.chats())
        assert asked == len(read_lines(home / "results" / "reviews.jsonl")) >= 6
        assert cron(home) == (0, "", "")
        assert len(server.chats()) == asked
    assert stat.S_IMODE((home / "results" / "reviews.jsonl").stat().st_mode) == 0o600


def test_shipped_crontab_alerts_when_the_service_refuses(tmp_path: Path) -> None:
    with serving(tmp_path, auth_refused=True) as server:
        home = project(tmp_path, server.base_url)
        job = home / "jobs" / "nightly.yaml"
        job.write_text(job.read_text().replace("max_failures: 5%", "max_failures: 60%"))  # of six prompts
        code, out, err = cron(home)
    assert code == 4
    assert out.startswith("batchchat: exit code 4: ALERT: the service stopped the run")
    assert err == ""
    [*_, last] = [json.loads(line) for line in (home / "results" / "nightly.log").read_text().splitlines()]
    assert last["event"] in ("resume", "run_finished")


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, None), (75, None), (130, None), (143, None), (1, "failed"), (2, "mistake"), (3, "mistake"), (4, "ALERT"),
     (5, "limit"), (6, "ALERT"), (137, "should not")],
)  # fmt: skip
def test_script_tells_what_somebody_should_look_at(tmp_path: Path, code: int, told: str | None) -> None:
    home = project(tmp_path, "http://127.0.0.1:9")
    (home / ".venv" / "bin" / "batchchat").write_text(f"#!/bin/sh\nexit {code}\n")
    found, out, err = cron(home)
    assert err == ""
    if told is None:
        assert (found, out) == (0, "")
    else:
        assert found == code
        assert told in out


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit; a key may stand several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def test_service_gives_a_run_the_time_that_it_asks_for() -> None:
    service = unit("batchchat-nightly.service")["Service"]
    job = load_job(str(ROOT / "jobs" / "nightly.yaml"), environ={})
    assert float(service["TimeoutStopSec"][0]) > job.grace_s
    assert service["KillSignal"] == ["SIGTERM"]
    assert set(service["SuccessExitStatus"][0].split()) == {"75", "143"}
    assert "TimeoutStartSec" not in service  # none for a oneshot: the run ends by its own deadline
    assert service["ReadWritePaths"] == [f"/srv/reviews/{os.path.dirname(job.output.path)}"]
    arguments = shlex.split(service["ExecStart"][0])
    known = {option for parameter in run_command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("-")} <= known


def test_command_of_the_service_works_as_systemd_starts_it(tmp_path: Path, server: Server) -> None:
    service = unit("batchchat-nightly.service")["Service"]
    home = project(tmp_path, server.base_url)
    [credential] = service["LoadCredential"]
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    shutil.copy(home / ".env", credentials / credential.partition(":")[0])
    cache = tmp_path / "cache"
    places = {"/srv/reviews": str(home), "%d": str(credentials), "/var/cache/batchchat": str(cache)}
    filled = lambda text: re.sub("|".join(places), lambda found: places[found[0]], text)  # noqa: E731
    environment = dict(filled(line).split("=", 1) for line in service["Environment"])
    command = [filled(part) for part in shlex.split(service["ExecStart"][0])]
    (home / "results").mkdir()
    code, out, err = finish(
        start_command(command, env=environment | {"PATH": "/usr/bin:/bin"}, cwd=str(home), umask=0o077)
    )
    assert (code, out, err) == (0, "", "")
    assert len(read_lines(home / "results" / "reviews.jsonl")) >= 6
    assert list(cache.rglob("*"))


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    for path in SYSTEMD.iterdir():
        text = (
            path.read_text()
            .replace("/srv/reviews/.venv/bin/batchchat", "/bin/true")
            .replace("/usr/bin/logger", "/bin/true")
        )
        (tmp_path / path.name).write_text(text)
    names = sorted(path.name.replace("@.", "@x.") for path in SYSTEMD.iterdir())
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in names)],
        capture_output=True, text=True, timeout=45, env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "batchchat" in line]
    assert ours == []


def test_timer_and_service_belong_together() -> None:
    assert (SYSTEMD / "batchchat-nightly.timer").with_suffix(".service").is_file()
    assert unit("batchchat-nightly.timer")["Timer"]["Persistent"] == ["true"]
    parser: Any = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(SYSTEMD / "batchchat-nightly.timer")
    assert parser["Install"]["WantedBy"] == "timers.target"
