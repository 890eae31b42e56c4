"""What every driver shares: its command line, its input and its output lines. Needs nothing but the standard library."""

import argparse
import json
from collections.abc import Iterator


def parse_arguments() -> argparse.Namespace:
    """The command line of a driver; ``api`` is the base URL of OpenAI's kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, help="JSONL of {id, prompt}")
    parser.add_argument("--output", required=True)
    parser.add_argument("--base-url", required=True, help="scheme://host:port, no path")
    parser.add_argument("--provider", choices=("openai", "ai-engine"), default="openai")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0, help="requests a second; 0: no limit")
    options = parser.parse_args()
    options.api = options.base_url + "/v1"
    return options


def prompts(path: str) -> Iterator[tuple[str, str]]:
    """Id and prompt of each line, lazily."""
    with open(path, encoding="utf-8") as source:
        for line in source:
            row = json.loads(line)
            yield row["id"], row["prompt"]


class Writer:
    """One JSON line a result, flushed, as a careful script would."""

    def __init__(self, path: str) -> None:
        self._sink = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process

    def answered(self, prompt_id: str, reply: str) -> None:
        self._sink.write(json.dumps({"id": prompt_id, "reply": reply}) + "\n")
        self._sink.flush()

    def failed(self, prompt_id: str, error: object) -> None:
        self._sink.write(json.dumps({"id": prompt_id, "error": repr(error)[:300]}) + "\n")
        self._sink.flush()
