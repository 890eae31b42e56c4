"""async-batch-llm: process_stream with its OpenAI-compatible model."""

import asyncio

import async_batch_llm

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()


async def main() -> None:
    strategy = async_batch_llm.llm(
        "openai-compatible:canned", base_url=options.api, api_key="dummy", max_connections=options.concurrency
    )
    limits = {"max_requests_per_minute": options.rate * 60} if options.rate else {}
    queued = 4 * options.concurrency
    config = async_batch_llm.ProcessorConfig(
        concurrency=options.concurrency, max_queue_size=queued, max_result_queue_size=queued, **limits
    )
    writer = Writer(options.output)
    async for result in async_batch_llm.process_stream(strategy, prompts(options.input), config=config):
        if result.success:
            writer.answered(result.item_id, result.output)
        else:
            writer.failed(result.item_id, result.error)


asyncio.run(main())
