"""lm-deluge: LLMClient.process_prompts_async over a registered model."""

import asyncio
import os

import lm_deluge
from lm_deluge.models import register_model

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()
os.environ["BENCH_KEY"] = "dummy"
register_model(
    id="canned", name="canned", api_base=options.api, api_key_env_var="BENCH_KEY", api_spec="openai", regions=[]
)


async def main() -> None:
    rows = list(prompts(options.input))
    client = lm_deluge.LLMClient(
        "canned",
        max_requests_per_minute=int(options.rate * 60) if options.rate else 10_000_000,
        max_tokens_per_minute=2_000_000_000,
        max_concurrent_requests=options.concurrency,
        progress="tqdm",
    )
    answers = await client.process_prompts_async([prompt for _, prompt in rows], show_progress=False)
    writer = Writer(options.output)
    for (prompt_id, _), answer in zip(rows, answers, strict=True):
        if answer is None or answer.is_error or answer.completion is None:
            writer.failed(prompt_id, answer and answer.error_message)
        else:
            writer.answered(prompt_id, answer.completion)


asyncio.run(main())
