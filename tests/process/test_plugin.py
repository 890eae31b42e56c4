"""A provider from a package of its own: found, described, used by a real run; a broken one hurts no other."""

import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BATCHCHAT, read_lines

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"


def install(folder: Path, *, name: str = "batchchat-plain", points: dict[str, str], **modules: str) -> None:
    """What an installer leaves of a package, without a registry or a build."""
    folder.mkdir(exist_ok=True)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    told = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{kind} = {target}\n" for kind, target in points.items()]
    (told / "entry_points.txt").write_text("[batchchat.providers]\n" + "".join(lines))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the package of tests/plugin_package installed in it."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["batchchat.providers"]
    install(tmp_path / "packages", name=project["name"], points=points)
    shutil.copy(PACKAGE / "batchchat_plain.py", tmp_path / "packages")
    return tmp_path / "packages"


def call(packages: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHCHAT, *arguments],
        cwd=packages.parent,
        env={**os.environ, "PYTHONPATH": str(packages)} | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )


class _Plain(BaseHTTPRequestHandler):
    """The service that the plug-in is for; fails the first request for each text, if told to."""

    seen: dict[str, int]
    key: str | None
    fail_first = False
    body: bytes | None

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        self.seen[text] = self.seen.get(text, 0) + 1
        status, body = 200, json.dumps({"text": f"You said {text}"}).encode()
        if self.key and self.headers["X-Key"] != self.key:
            status, body = 401, b"no"
        elif self.fail_first and self.seen[text] == 1:
            status, body = 503, b"later"
        elif self.body is not None:
            body = self.body
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    handler = type("Handler", (_Plain,), {"seen": {}, "key": None, "body": None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_port}"
        yield handler
        server.shutdown()
        thread.join()


def run(packages: Path, settings: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder = packages.parent
    (folder / "in.jsonl").write_text('{"id": 1, "prompt": "hello"}\n{"id": 2, "prompt": "grüße 🙂"}\n')
    (folder / "job.yaml").write_text(f"version: 1\nprovider: {{name: plain, {settings}}}\n")
    return call(packages, "run", "-j", "job.yaml", "in.jsonl", "-o", "out.jsonl", *more, **environment)


def test_a_real_run_uses_it_with_retries_and_resuming(packages: Path, service: Any) -> None:
    service.fail_first = True
    done = run(packages, f'base_url: "{service.url}", shout: true')
    assert done.returncode == 0, done.stderr
    lines = {line["id"]: line for line in read_lines(packages.parent / "out.jsonl")}
    assert {key: line["response"] for key, line in lines.items()} == {1: "You said HELLO", 2: "You said GRÜSSE 🙂"}
    assert {(line["provider"], line["attempts"]) for line in lines.values()} == {("plain", 2)}
    asked = dict(service.seen)
    assert run(packages, f'base_url: "{service.url}", shout: true').returncode == 0
    assert service.seen == asked
    changed = run(packages, f'base_url: "{service.url}"')
    assert changed.returncode == 3
    assert "--on-change" in changed.stderr


def test_its_errors_are_what_they_are_for_every_provider(packages: Path, service: Any) -> None:
    service.key = "sk-right"
    settings = f'base_url: "{service.url}", api_key_env: PLAIN_KEY'
    unset = run(packages, settings)
    assert (unset.returncode, unset.stderr.count("\n")) == (2, 1)
    assert "PLAIN_KEY is not set" in unset.stderr
    wrong = run(packages, settings, "--concurrency", "1", PLAIN_KEY="sk-wrong")
    assert "2 × auth" in wrong.stderr
    assert "sk-wrong" not in wrong.stderr
    right = run(packages, settings, PLAIN_KEY="sk-right")
    assert right.returncode == 0, right.stderr


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"text": 3}', b'{"other": "x"}', b'{"text": ""}', b"\xff\xfe"])
def test_a_service_that_answers_nonsense_ends_no_run_with_a_traceback(
    packages: Path, service: Any, body: bytes
) -> None:
    service.body = body
    done = run(packages, f'base_url: "{service.url}"', "--retries", "0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_its_settings_are_shown_and_checked(packages: Path) -> None:
    listed = json.loads(call(packages, "providers", "--json").stdout)
    (plain,) = (each for each in listed if each["name"] == "plain")
    assert plain["summary"] == "Provider plain: text in, text out."
    assert {each["key"]: each["description"] for each in plain["settings"]} == {
        "base_url": "Its address.",
        "api_key_env": "Environment variable that holds its key.",
        "shout": "Whether prompts are sent in capitals.",
    }
    schema = json.loads(call(packages, "schema").stdout)
    (settings,) = (each for each in schema["properties"]["provider"]["oneOf"] if each["title"] == "plain")
    assert settings["required"] == ["name", "base_url"]
    assert settings["additionalProperties"] is False
    for wrong, said in (
        ("shout: true", "the key base_url is missing"),
        ('base_url: "http://x", shut: true', "did you mean shout?"),
        ('base_url: "http://x", shout: 3', "expected true or false, found the number 3"),
    ):
        done = run(packages, wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
        assert "job.yaml:2" in done.stderr


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import no_such_module_anywhere", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("raise ValueError('on\\nmany lines')", "cannot be loaded: ValueError: on many lines"),
        ("def broken(:", "cannot be loaded: SyntaxError"),
        ("Other = 1", "cannot be loaded: AttributeError"),
        ("Broken = 1", "is none: expected a class, found int"),
        ("class Broken: pass", "is none: it has no kind, Config, identity, complete, stream"),
        (
            "class Broken:\n    kind, Config = 'broken', dict\n    identity = complete = stream = __aenter__ = __aexit__ = print",
            "is none: its Config is no msgspec.Struct",
        ),
    ],
)
def test_a_broken_one_is_told_in_a_sentence_and_breaks_no_other(packages: Path, module: str, said: str) -> None:
    install(packages, name="broken-one", points={"broken": "broken_one:Broken"}, broken_one=module)
    listed = call(packages, "providers")
    assert (listed.returncode, listed.stderr) == (0, "")
    (told,) = re.findall(r"^broken \(broken_one:Broken\)\n  cannot be used: (.*)$", listed.stdout, re.MULTILINE)
    assert said in told
    assert "Provider plain" in listed.stdout
    assert call(packages, "schema").returncode == 0
    used = call(packages, "run", "--provider", "broken", "-o", "x.jsonl", "--prompt", "x", "in.jsonl")
    assert (used.returncode, used.stderr.count("\n")) == (2, 1)
    assert said in used.stderr


def test_the_names_of_built_in_providers_cannot_be_taken(packages: Path) -> None:
    install(packages, name="greedy", points={"openai": "batchchat_plain:Plain"})
    listed = call(packages, "providers")
    assert listed.returncode == 0
    assert "openai (batchchat.providers.openai:OpenAIChat)" in listed.stdout
    assert listed.stderr == (
        "batchchat: the name 'openai' is batchchat's own, so batchchat_plain:Plain is not used; "
        "its package must choose another\n"
    )


def test_two_packages_with_one_name_are_told_when_it_is_used(packages: Path) -> None:
    install(packages, name="another", points={"plain": "another:Plain"}, another="class Plain: pass")
    done = run(packages, 'base_url: "http://127.0.0.1:9"')
    assert done.returncode == 2
    assert re.search(r"the name 'plain' is taken by (batchchat_plain|another):Plain and ", done.stderr)
    assert call(packages, "providers").returncode == 0


def test_the_page_shows_these_files() -> None:
    page = (ROOT / "docs" / "write-a-provider.md").read_text()
    blocks = dict(re.findall(r"^```(toml|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert blocks["toml"] == (PACKAGE / "pyproject.toml").read_text()
    assert blocks["python"] == (PACKAGE / "batchchat_plain.py").read_text()
