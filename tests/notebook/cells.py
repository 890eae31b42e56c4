"""What the example notebook says and does: its cells, in their order."""

__all__ = ["CELLS"]

# Text for people, and code; the kind stands first.
CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# A run in a notebook

Prompts to a chat service and the answers in a data frame, without leaving the notebook. This one talks to the development
server, which echoes what it is asked: `batchchat serve` in a shell starts it. Put your own service in the place of `service`.

It needs `pip install 'batchchat[pandas,polars]'`; either of the two libraries is enough for your own work.""",
    ),
    (
        "code",
        """import os

import batchchat

service = {"name": "ai-engine", "base_url": os.environ.get("BATCHCHAT_BASE_URL", "http://127.0.0.1:8080")}""",
    ),
    (
        "markdown",
        """## Outcomes as they come

`stream` takes texts, or objects as input lines hold them. `progress=True` shows a bar under the cell; it stays with the counts. One
prompt here is empty: that is no reason to stop, but an outcome with an error.""",
    ),
    (
        "code",
        """topics = ["physics", "biology", "history"]
prompts = [{"id": n, "prompt": f"Question {n} about {topics[n % 3]}?", "topic": topics[n % 3]} for n in range(60)]
prompts[7]["prompt"] = ""

outcomes = [outcome async for outcome in batchchat.stream(prompts, provider=service, rate="100/s", progress=True)]
len(outcomes)""",
    ),
    (
        "markdown",
        """## A data frame in one call

The columns are those of `batchchat convert` to CSV: what was asked stands in `input.…`, errors have columns of their own. Outcomes
come in the order of completion; `index` is the place in the input.""",
    ),
    (
        "code",
        """frame = batchchat.to_frame(outcomes, library="pandas").sort_values("index").set_index("id")
frame[["response", "input.topic", "attempts", "output_tokens"]].head(3)""",
    ),
    ("code", """frame.loc[frame["error_type"].notna(), ["error_type", "error_message"]]"""),
    (
        "code",
        """frame.groupby("input.topic").agg(answered=("response", "count"), failed=("error_type", "count"))""",
    ),
    (
        "markdown",
        """## A job with files

A job keeps its results in a file, so that it can be stopped, resumed, and read later. `run_job_sync` works in a notebook too.""",
    ),
    (
        "code",
        """import json
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
(folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\\n" for prompt in prompts if prompt["prompt"]))
settings = {"input": [str(folder / "prompts.jsonl")], "output.path": str(folder / "results.jsonl")}
settings |= {f"provider.{key}": value for key, value in service.items()}

report = batchchat.run_job_sync(batchchat.load_job(None, settings), progress=True)
report.exit_code, report.answered, report.failed""",
    ),
    (
        "code",
        """results = batchchat.read_frame(str(folder / "results.jsonl"), library="polars")
results.sort("index").select("id", "response", "input.topic").head(3)""",
    ),
    (
        "markdown",
        """A second run of the same job finds everything answered, and asks nothing.""",
    ),
    (
        "code",
        """again = batchchat.run_job_sync(batchchat.load_job(None, settings))
again.answered_before, again.answered, again.requests""",
    ),
)
