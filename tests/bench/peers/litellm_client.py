"""litellm.acompletion, a semaphore and a task for each prompt, aiolimiter where there is a rate."""

import asyncio

import litellm

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()
litellm.suppress_debug_info = True


async def main() -> None:
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
                answer = await litellm.acompletion(
                    model="openai/canned",
                    api_base=options.api,
                    api_key="dummy",
                    messages=[{"role": "user", "content": prompt}],
                )
                writer.answered(prompt_id, answer.choices[0].message.content)
            except Exception as error:
                writer.failed(prompt_id, error)

    await asyncio.gather(*(one(prompt_id, prompt) for prompt_id, prompt in prompts(options.input)))


asyncio.run(main())
