"""What other programs of this user see of the processes that batchchat starts: no keys."""

import os
import sys
from pathlib import Path

import pytest

from batchchat.child_environment import bare_environment, keyless_environment
from tests.runs import children_of, finish, serving, start_run, wait_until, write_prompts

SECRETS = {
    "OPENAI_API_KEY": "sk-k3y-1",
    "MISTRALKEY": "sk-k3y-2",
    "HF_TOKEN": "sk-k3y-3",
    "AWS_SECRET_ACCESS_KEY": "sk-k3y-4",
    "DB_PASSWORD": "sk-k3y-5",
    "HTTPS_PROXY": "http://u:sk-k3y-6@h",
    "BATCHCHAT_HEADER": "X: sk-k3y-7",
    "https_proxy": "http://u:sk-k3y-8@h",
    "GOOGLE_APPLICATION_CREDENTIALS": "/sk-k3y-9",
    "GITHUB_TOKEN_2": "sk-k3y-10",
}
NEEDED = {"PATH": "/bin", "HOME": "/h", "PYTHONPATH": "/p", "LANG": "C", "LC_ALL": "C", "LD_LIBRARY_PATH": "/l"}


def test_no_variable_with_a_secret_goes_on() -> None:
    assert bare_environment({**SECRETS, **NEEDED, "UNKNOWN": "sk"}) == NEEDED
    library = {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0", "GGML_VK_VISIBLE_DEVICES": "0", "PWD": "/w"}
    assert keyless_environment({**SECRETS, **NEEDED, **library}) == {**NEEDED, **library}


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_that_checks_answers_knows_no_key(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "string", "pattern": "^(a+)+$"}')
    environ = {**os.environ, **SECRETS, "HTTPS_PROXY": "", "https_proxy": ""}
    del environ["BATCHCHAT_HEADER"]
    prompts, results = write_prompts(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    header = ["--header", "X-Secret: sk-k3y-0", "--schema", str(schema), "--schema-retries", "0", "--concurrency", "1"]
    with serving(tmp_path, replies='["\\"aa\\""]', latency_ms=700) as server:
        process = start_run(server, prompts, results, *header, env=environ)
        wait_until(lambda: children_of(process.pid, "batchchat.answer_child"))
        (child,) = children_of(process.pid, "batchchat.answer_child")
        seen = b"".join(Path(f"/proc/{child}/{name}").read_bytes() for name in ("cmdline", "environ"))
        finish(process)
    assert b"PATH=" in seen
    assert b"sk-k3y" not in seen
