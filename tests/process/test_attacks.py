"""What a bad day does to a run: nothing that arrived is lost, nothing that was given is destroyed, nothing hangs."""

import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from tests.runs import (
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    run_arguments,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = pytest.mark.process


def stored_ids(path: Path) -> list[str]:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    assert data.endswith(b"\n")
    return [line.get("custom_id") or line["id"] for line in map(json.loads, data.splitlines())]


FORMS = {
    "plain": ("r.jsonl", []),
    "gzip": ("r.jsonl.gz", []),
    "zstd": ("r.jsonl.zst", []),
    "batch": ("r.jsonl", ["--format", "openai-batch"]),
    "ordered": ("r.jsonl", ["--order", "input"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_run_killed_at_any_moment_is_finished_by_the_next(tmp_path: Path, form: str) -> None:
    """Two kills, at moments drawn anew each time; a run that orders its lines holds twice as many prompts."""
    name, more = FORMS[form]
    prompts, results, draw = write_prompts(tmp_path / "prompts.jsonl", 120), tmp_path / name, random.Random()
    with serving(tmp_path, latency_ms=8, latency_jitter=1, reply_chars=draw.choice([0, 3000])) as server:
        for moment in sorted(draw.sample(range(1, 100), 2)):
            process = start_run(server, prompts, results, "--concurrency", "8", *more)
            server.wait_for_chats(moment)
            kill(process)
            finish(process)
        code, _, err = run(server, prompts, results, "--concurrency", "8", *more)
        assert code == 0, err
        asked = sum(server.asked().values())
    assert Counter(stored_ids(results)) == Counter(f"q-{n}" for n in range(120))
    assert asked - 120 <= 2 * 8 * (2 if form == "ordered" else 1)


def test_stopped_and_continued_run_ends_as_if_nothing_was(tmp_path: Path) -> None:
    """Suspended for longer than its time limits, as a laptop does."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 30), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=100) as server:
        process = start_run(
            server, prompts, results, "--concurrency", "4", "--timeout", "500ms", "--idle-timeout", "500ms"
        )
        server.wait_for_chats(6)
        kill(process, signal.SIGSTOP)
        threading.Event().wait(1.0)  # the time that passes for the run is what is tested
        kill(process, signal.SIGCONT)
        code, _, err = finish(process)
    assert code == 0, err
    assert_all_answered(results, range(30))


WAITS = {
    "Retry-After": ({"error_429": 1, "retry_after": 120}, ["-v"], "the service asks"),
    "backoff": ({"error_503": 1}, ["-v", "--retries", "9"], "attempt 2"),
    "Retry-After of the session": ({"down_until_request": 10_000, "retry_after": 100}, ["-v"], "the service asks"),
}  # fmt: skip


@pytest.mark.parametrize("case", WAITS)
def test_signal_ends_a_wait_at_once(tmp_path: Path, case: str) -> None:
    scenario, more, told = WAITS[case]
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 10), tmp_path / "results.jsonl"
    with serving(tmp_path, **scenario) as server:
        process = start_run(server, prompts, results, *more)
        wait_until(lambda: told in process.stderr.readline())
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
    assert code == 130, err
    assert "10 pending" in err


def test_signal_ends_the_check_of_a_large_input(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 400_000)
    with serving(tmp_path) as server:
        process = start_run(server, prompts, tmp_path / "results.jsonl")
        wait_until((tmp_path / "results.jsonl").exists)  # made right before the check
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
        assert server.chats() == []
    assert code == 130, err
    assert "Traceback" not in err


def test_signal_ends_the_wait_for_a_pipe_that_nobody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with serving(tmp_path) as server:
        process = start_run(server, tmp_path / "pipe.jsonl", tmp_path / "results.jsonl")
        wait_until(lambda: "from a stream" in process.stderr.readline())
        kill(process, signal.SIGINT)
        assert finish(process)[0] == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_errors_file_that_is_asked_again_loses_no_prompt(tmp_path: Path, number: int) -> None:
    """The prompts of an errors file stay in it until all of them were asked, whatever ends the run."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 15), tmp_path / "results.jsonl"
    errors = tmp_path / "results.errors.jsonl"
    with serving(tmp_path, error_500=1) as server:
        assert run(server, prompts, results, "--retries", "0", "--concurrency", "15")[0] == 1
    assert len(read_lines(errors)) == 15
    with serving(tmp_path, latency_ms=150) as server:
        process = start_run(server, errors, results, "--concurrency", "2")
        server.wait_for_chats(4)
        kill(process, number)
        _, _, err = finish(process)
        assert len(read_lines(errors)) == 15, err
        code, _, err = run(server, errors, results, "--limit", "5")
        assert code == 0, err
        assert len(read_lines(errors)) == 15, "a part of the input is not all of it"
        assert run(server, errors, results, "--concurrency", "15")[0] == 0
    assert_all_answered(results, range(15))
    assert errors.read_bytes() == b""


@pytest.mark.parametrize("option", ["-o", "--errors", "--summary"])
def test_input_is_never_overwritten(tmp_path: Path, option: str) -> None:
    prompts, link = write_prompts(tmp_path / "prompts.jsonl", 3), tmp_path / "link.jsonl"
    link.symlink_to(prompts)
    before = prompts.read_bytes()
    for name in (prompts, link):
        code, _, err = run("http://127.0.0.1:9", prompts, tmp_path / "results.jsonl", option, str(name))
        assert code == 2, err
        assert "input" in err
        assert prompts.read_bytes() == before


def test_five_runs_at_once_answer_each_prompt_once(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 60), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=100) as server:
        codes = [finish(process)[0] for process in [start_run(server, prompts, results) for _ in range(5)]]
        asked = server.asked()
    assert Counter(codes)[0] >= 1
    assert set(codes) <= {0, 75}
    assert_all_answered(results, range(60))
    assert set(asked.values()) == {1}


def test_folder_of_results_that_goes_away_ends_the_run(tmp_path: Path) -> None:
    """What arrived is in the file that was open, and what came after the fault was found is kept elsewhere and told."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 500), tmp_path / "out" / "results.jsonl"
    spill = tmp_path / "spill"
    spill.mkdir()
    with serving(tmp_path, latency_ms=50) as server:
        environ = {**os.environ, "TMPDIR": str(spill)}
        process = start_run(server, prompts, results, "--concurrency", "4", env=environ)
        server.wait_for_chats(8)
        shutil.move(tmp_path / "out", tmp_path / "moved")
        code, _, err = finish(process)
        asked = server.asked()
    assert code == 6, err
    assert "Traceback" not in err
    assert len(asked) < 500
    kept = read_lines(tmp_path / "moved" / "results.jsonl")
    for path in spill.glob("batchchat-spill-*"):
        assert str(path) in err
        kept += read_lines(path)
    assert Counter(line["id"] for line in kept) == Counter(f"q-{prompt.split()[1]}" for prompt in asked)


CACHES = {"no home": None, "a file": "file", "a device": "/dev/null", "no folder": "/proc/1", "junk": "junk"}


@pytest.mark.parametrize("cache", CACHES)
def test_cache_that_cannot_be_used_costs_nothing_but_a_nonce(tmp_path: Path, cache: str) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 3), tmp_path / "results.jsonl"
    environ = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    with serving(tmp_path) as server:
        if cache in ("a file", "junk"):
            folder = tmp_path / "cache"
            environ["XDG_CACHE_HOME"] = str(folder)
            if cache == "a file":
                folder.write_text("x")
            else:
                assert run(server, prompts, tmp_path / "first.jsonl", env=environ)[0] == 0
                (stored,) = (folder / "batchchat").glob("nonce-*.json")
                kept = json.loads(stored.read_bytes())
                stored.write_text(json.dumps(kept | {"nonce": "a\r\nX-Evil: yes"}))
        elif CACHES[cache] is not None:
            environ["XDG_CACHE_HOME"] = CACHES[cache]
        else:
            environ["HOME"] = str(tmp_path / "nowhere" / "home")
        code, _, err = run(server, prompts, results, "-vv", env=environ)
    assert code == 0, err
    assert "Traceback" not in err
    assert_all_answered(results, range(3))


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 3), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        command = " ".join(run_arguments(server, prompts, results, "-v"))
        assert subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, check=False).returncode == 0
    assert_all_answered(results, range(3))


def test_few_open_files_lower_the_concurrency_and_lose_nothing(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 600), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=5) as server:
        command = " ".join(run_arguments(server, prompts, results, "--concurrency", "500"))
        ended = subprocess.run(["sh", "-c", f"ulimit -n 64; {command}"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "concurrency is 32 and not 500" in ended.stderr
    assert_all_answered(results, range(600))


def test_server_that_is_started_anew_in_mid_run_costs_attempts_only(tmp_path: Path) -> None:
    """Another process on the same port, with other nonces; in between the port is closed."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 60), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=50) as first:
        port = first.base_url.rpartition(":")[2]
        process = start_run(first, prompts, results, "--concurrency", "4")
        first.wait_for_chats(10)
        first.process.kill()
        first.process.wait()
        from tests.runs import BATCHCHAT

        second = subprocess.Popen(
            [*BATCHCHAT, "serve", "--port", port, "--set", "seed=7"], stdout=subprocess.PIPE, text=True
        )
        try:
            code, _, err = finish(process)
        finally:
            second.terminate()
            second.wait(10)
            second.stdout.close()
    assert code == 0, err
    assert_all_answered(results, range(60))


class Proxy:
    """Forwards plain requests, and notes the first line and the headers of each connection."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client:
            data = client.recv(65536)
            self.heads.append(data)
            host, _, port = data.split(b" ")[1].removeprefix(b"http://").partition(b"/")[0].decode().partition(":")
            with socket.create_connection((host, int(port))) as server:
                server.sendall(data)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def proxy():
    proxy = Proxy()
    yield proxy
    proxy.close()


ROUTES = [
    ({"HTTP_PROXY": "{}"}, [], True),
    ({"http_proxy": "{}"}, [], True),
    ({"ALL_PROXY": "{}"}, [], True),
    ({"HTTPS_PROXY": "{}"}, [], False),
    ({"HTTP_PROXY": "{}", "NO_PROXY": "127.0.0.1"}, [], False),
    ({"HTTP_PROXY": "{}", "NO_PROXY": "*"}, [], False),
    ({"HTTP_PROXY": "http://127.0.0.1:9"}, ["--proxy", "{}"], True),
    ({"NO_PROXY": "127.0.0.1"}, ["--proxy", "{}"], True),
]


@pytest.mark.parametrize(("environ", "options", "used"), ROUTES)
def test_proxy_is_used_where_it_should_be_and_its_password_is_told_nowhere(
    tmp_path: Path, proxy: Proxy, environ: dict, options: list, used: bool
) -> None:
    url = f"http://someone:pr0xypass@{proxy.address}"
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 2), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        given = {key: value.format(url) for key, value in environ.items()}
        code, out, err = run(
            server, prompts, results, "-vv", *(option.format(url) for option in options), env={**os.environ, **given}
        )
        assert code == 0, err
        assert len(server.chats()) == 2
    assert bool(proxy.heads) is used
    assert all(b"Proxy-Authorization: Basic " in head for head in proxy.heads)
    written = b"".join(path.read_bytes() for path in tmp_path.glob("results*"))
    assert "pr0xypass" not in out + err + written.decode()


def test_proxy_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 1), tmp_path / "results.jsonl"
    code, _, err = run(
        "http://127.0.0.1:9", prompts, results, "-vv", "--retries", "0", "--proxy", "http://u:pr0xypass@127.0.0.1:9"
    )
    assert code == 1
    told = err + results.with_suffix(".errors.jsonl").read_text() + results.with_suffix(".run.json").read_text()
    assert "proxy cannot be used" in told
    assert "pr0xypass" not in told


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1", "ftp://x", "http://h:99999", "http://..a..b", f"http://{'a' * 300}.com"]
)
@pytest.mark.parametrize("option", ["--base-url", "--proxy"])
def test_address_that_is_none_is_refused_with_a_sentence(tmp_path: Path, option: str, address: str) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 1)
    code, _, err = run("http://127.0.0.1:9", prompts, tmp_path / "results.jsonl", option, address, "--retries", "0")
    assert code == 2, err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_certificate_that_nobody_vouches_for_stops_the_run_and_says_so(tmp_path: Path) -> None:
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                context.wrap_socket(client, server_side=True).close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 5), tmp_path / "results.jsonl"
    code, _, err = run(f"https://127.0.0.1:{listener.getsockname()[1]}", prompts, results)
    listener.close()
    assert code == 4, err
    assert "TLS: the certificate of" in err
