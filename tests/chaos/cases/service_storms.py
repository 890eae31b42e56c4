"""Services that say "too many" in every way they know, and whose capacity rises and falls."""

import asyncio
import email.utils
import json
import time

from tests.chaos.cases.network_cuts import vary
from tests.chaos.raw_answers import http
from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.registry import case
from tests.chaos.world import World

REFUSAL = json.dumps({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}})
# Values that ask for a wait, and such that ask for none that has any sense.
SENSIBLE = ("1", "0.3", "  1 ", "{date}")
SENSELESS = ("", "soon", "-5", "nan", "1e999", "0", "{past}", "9" * 400, "1,2")


def _retry_after(ask: Ask) -> tuple[str, ...]:
    draw = ask.rng.random()
    if draw < 0.2:
        return ()
    if draw < 0.3:
        return ("retry-after-ms: 250",)
    value = ask.rng.choice(SENSIBLE if draw < 0.65 else SENSELESS)
    now = time.time()
    value = value.replace("{date}", email.utils.formatdate(now + 1, usegmt=True))
    value = value.replace("{past}", email.utils.formatdate(now - 3600, usegmt=True))
    return (f"Retry-After: {value}", f"Date: {email.utils.formatdate(now, usegmt=True)}")


@case("service", "storms of 429: to all for a while, to half, in turns, with any Retry-After", tries=2, within_s=240)
def storms(world: World) -> None:
    """Seconds, fractions, dates, milliseconds, none and nonsense; in the end every prompt is answered once."""
    world.write_prompts(60)
    world.rates = [(100, 1.0)]
    vary(world)
    kind = world.rng.choice(["all", "half", "turns"])
    begun = time.monotonic()

    async def answer(ask: Ask) -> None:
        refused = {
            "all": time.monotonic() - begun < 2.5,
            "half": ask.attempt <= 3 and ask.rng.random() < 0.5,
            "turns": ask.attempt <= 3 and ask.number % 2 == 0,
        }
        if refused[kind]:
            await ask.send(http(429, REFUSAL, "Content-Type: application/json", *_retry_after(ask)))
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run(within_s=200)
        world.judge()


@case("service", "a wait longer than --max-retry-wait allows, in mid-run; later it is over", tries=2)
def wait_too_long(world: World) -> None:
    world.write_prompts(40)
    world.options = ["--max-retry-wait", "2s"]
    from_number, over = world.rng.randrange(1, 20), False
    status = world.rng.choice([429, 503])

    async def answer(ask: Ask) -> None:
        if over or ask.number < from_number:
            await ask.answer()
        else:
            await ask.send(http(status, REFUSAL, "Retry-After: 600"))

    with RawServer(world, answer) as server:
        world.run(codes={4})
        most = from_number + 2 * world.concurrency
        world.verdict.blame("wrong", f"{server.chats} prompts were sent, {most} at most", server.chats > most)
        over = True
        world.finish()


@case("service", "a capacity that rises and falls: 8, 32, then 4 at a time, the others get 429", tries=3, in_test=1)
def capacity_changes(world: World) -> None:
    world.write_prompts(300)
    world.concurrency = 32

    async def answer(ask: Ask) -> None:
        done = len(answered)
        capacity = 8 if done < 60 else 32 if done < 200 else 4
        if ask.server.in_flight > capacity and ask.attempt <= 4:
            await ask.send(http(429, REFUSAL, "Retry-After: 0.2"))
            return
        await asyncio.sleep(0.02)
        await ask.answer()
        answered.add(ask.text)

    answered: set[str] = set()
    with RawServer(world, answer):
        world.run(within_s=110)
        world.judge()


@case("service", "503 for all for 4 seconds, from the start or in mid-run", tries=2)
def outage(world: World) -> None:
    world.write_prompts(60)
    world.rates = [(60, 1.0)]
    from_number = world.rng.choice([1, 20])
    since: list[float] = []

    async def answer(ask: Ask) -> None:
        if ask.number >= from_number and not since:
            since.append(time.monotonic())
        if since and time.monotonic() - since[0] < 4:
            await ask.send(http(503, "<html>down</html>", *ask.rng.choice([(), ("Retry-After: 1",)])))
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run(within_s=110)
        world.judge()
