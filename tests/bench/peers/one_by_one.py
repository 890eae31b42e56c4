"""A session and a nonce for each prompt, as clients of AI Engine sites are often written."""

import asyncio
import json

import aiohttp

from tests.bench.peers.arguments import Writer, parse_arguments, prompts

options = parse_arguments()


async def ask(prompt: str) -> str:
    async with aiohttp.ClientSession() as session:
        async with session.post(options.base_url + "/wp-json/mwai/v1/start_session") as response:
            response.raise_for_status()
            nonce = (await response.json())["restNonce"]
        body = {
            "botId": "default",
            "session": "N/A",
            "chatId": "x",
            "messages": [],
            "newMessage": prompt,
            "stream": True,
        }
        parts = []
        url, headers = options.base_url + "/wp-json/mwai-ui/v1/chats/submit", {"X-WP-Nonce": nonce}
        async with session.post(url, json=body, headers=headers) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if event["type"] == "live":
                        parts.append(event["data"])
        return "".join(parts)


async def main() -> None:
    gate, writer = asyncio.Semaphore(options.concurrency), Writer(options.output)

    async def one(prompt_id: str, prompt: str) -> None:
        async with gate:
            try:
                writer.answered(prompt_id, await ask(prompt))
            except Exception as error:
                writer.failed(prompt_id, error)

    await asyncio.gather(*(one(prompt_id, prompt) for prompt_id, prompt in prompts(options.input)))


asyncio.run(main())
