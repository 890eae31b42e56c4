"""The usual hand-written batch: AsyncOpenAI, a semaphore, a task for each prompt, aiolimiter where there is a rate."""

import asyncio

from openai import AsyncOpenAI

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()


async def main() -> None:
    client = AsyncOpenAI(base_url=options.api, api_key="dummy")
    gate, writer = asyncio.Semaphore(options.concurrency), Writer(options.output)
    limiter = None
    if options.rate:
        from aiolimiter import AsyncLimiter

        limiter = AsyncLimiter(options.rate, 1)

    async def one(prompt_id: str, prompt: str) -> None:
        async with gate:
            try:
                if limiter:
                    await limiter.acquire()
                messages = [{"role": "user", "content": prompt}]
                answer = await client.chat.completions.create(model="canned", messages=messages)
                writer.answered(prompt_id, answer.choices[0].message.content)
            except Exception as error:
                writer.failed(prompt_id, error)

    await asyncio.gather(*(one(prompt_id, prompt) for prompt_id, prompt in prompts(options.input)))


asyncio.run(main())
