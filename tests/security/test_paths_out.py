"""A stranger's input cannot have files sent that lie outside of its folder, whatever way leads there."""

import json
import os
from pathlib import Path

import pytest

from tests.runs import BATCHCHAT, finish, serving, start_command

pytestmark = pytest.mark.process
SECRET = "s3cret-of-another-folder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An input's folder with every way out of it, beside a file that nobody may have."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    (tmp_path / "input-beside").mkdir()
    (tmp_path / "input-beside" / "secret.txt").write_text(SECRET)
    made = tmp_path / "input"
    (made / "sub").mkdir(parents=True)
    (made / "mine.txt").write_text("mine")
    (made / "link.txt").symlink_to("../outside/secret.txt")
    (made / "far.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (made / "chain.txt").symlink_to("sub/chain.txt")
    (made / "sub" / "chain.txt").symlink_to("../link.txt")
    (made / "folder").symlink_to("../outside")
    (made / "proc").symlink_to("/proc/self")
    (made / "loop.txt").symlink_to("loop.txt")
    (made / "inner.txt").symlink_to("mine.txt")
    os.mkfifo(made / "pipe.txt")
    return made


def ways_out(folder: Path) -> list[str]:
    outside = folder.parent / "outside" / "secret.txt"
    return [
        "../outside/secret.txt",
        "sub/../../outside/secret.txt",
        "./sub/.././../outside/./secret.txt",
        "//" + str(outside),
        str(outside),
        str(folder / ".." / "outside" / "secret.txt"),
        "../input-beside/secret.txt",
        "link.txt",
        "far.txt",
        "chain.txt",
        "folder/secret.txt",
        "folder/../outside/secret.txt",
        "/proc/self/environ",
        "/proc/self/cwd/../outside/secret.txt",
        "proc/environ",
        "proc/cwd/../outside/secret.txt",
        "/dev/stdin",
        "/dev/fd/0",
        "/etc/passwd",
        "~/secret.txt",
        "loop.txt",
        "pipe.txt",
        "sub",
        "mine.txt\0",
        f"file://{outside}",
        "mine.txt/../../outside/secret.txt",
    ]


@pytest.mark.parametrize("field", ["image", "file"])
def test_no_way_leads_out_of_the_inputs_folder(folder: Path, field: str) -> None:
    ways = ways_out(folder)
    lines = [
        {"id": "ok", "prompt": "x", field: None},
        *({"id": f"out-{n}", "prompt": "x", field: way} for n, way in enumerate(ways)),
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["in.jsonl", f"--{field}-field", field, "--provider", "openai", "--model", "m"]
    environ = {**os.environ, "LEAK": SECRET, "OPENAI_API_KEY": "k"}
    with serving(folder.parent) as server:
        where = ["--base-url", f"{server.base_url}/v1"]
        command = [*BATCHCHAT, "run", *options, *where, "-o", "out.jsonl"]
        code, out, err = finish(start_command(command, cwd=folder, env=environ))
        assert code == 3, err
        assert server.requests() == []
    checked, more_out, more_err = finish(
        start_command([*BATCHCHAT, "check", *options, *where], cwd=folder, env=environ)
    )
    out, err = out + more_out, err + more_err
    assert checked == 3
    for number in range(2, len(lines) + 1):
        assert f"in.jsonl:{number}: " in out + err, (ways[number - 2], out + err)
    assert "in.jsonl:1: " not in out + err
    assert SECRET not in out + err
    assert "Traceback" not in err


def test_links_within_the_folder_lead_somewhere(folder: Path) -> None:
    line = {"id": "ok", "prompt": "/debug", "file": ["inner.txt", str(folder / "mine.txt"), "sub/../mine.txt"]}
    (folder / "in.jsonl").write_text(json.dumps(line) + "\n")
    with serving(folder.parent) as server:
        command = [*BATCHCHAT, "run", "in.jsonl", "-o", "out.jsonl", "--file-field", "file", "--provider", "openai",
                   "--model", "m", "--base-url", f"{server.base_url}/v1"]  # fmt: skip
        code, _, err = finish(start_command(command, cwd=folder, env={**os.environ, "OPENAI_API_KEY": "k"}))
    assert code == 0, err
    assert (folder / "out.jsonl").read_text().count("mine.txt:") >= 2
