"""inspect-ai: get_model().generate, a task for each prompt."""

import asyncio
import os

from inspect_ai.model import GenerateConfig, get_model

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()
os.environ |= {"BENCH_API_KEY": "dummy", "BENCH_BASE_URL": options.api, "INSPECT_LOG_DIR": options.output + ".logs"}
model = get_model("openai-api/bench/canned", config=GenerateConfig(max_connections=options.concurrency))


async def main() -> None:
    writer = Writer(options.output)

    async def one(prompt_id: str, prompt: str) -> None:
        writer.answered(prompt_id, (await model.generate(prompt)).completion)

    await asyncio.gather(*(one(prompt_id, prompt) for prompt_id, prompt in prompts(options.input)))


asyncio.run(main())
