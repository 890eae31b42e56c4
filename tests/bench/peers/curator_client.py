"""bespokelabs-curator: curator.LLM with the openai backend over a list of prompts."""

import os

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()
os.environ |= {
    "CURATOR_VIEWER": "0",
    "TELEMETRY_ENABLED": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "OPENAI_API_KEY": "dummy",
    "CURATOR_CACHE_DIR": options.output + ".cache",
}
from bespokelabs import curator  # noqa: E402 - reads the environment


class Ask(curator.LLM):
    def prompt(self, row: dict[str, str]) -> str:
        return row["prompt"]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        return {"id": row["id"], "reply": response}


limits = {
    "base_url": options.api,
    "max_concurrent_requests": options.concurrency,
    "max_requests_per_minute": int(options.rate * 60) if options.rate else 10_000_000,
    "max_tokens_per_minute": 2_000_000_000,
    "require_all_responses": False,
}
found = Ask(model_name="canned", backend="openai", backend_params=limits)(
    [{"id": prompt_id, "prompt": prompt} for prompt_id, prompt in prompts(options.input)]
)
writer = Writer(options.output)
for row in getattr(found, "dataset", found):
    writer.answered(row["id"], row["reply"])
