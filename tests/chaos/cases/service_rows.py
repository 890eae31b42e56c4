"""Every kind of failure that AI Engine was seen to answer with, as captured, among good answers."""

from tests.chaos.cases.network_cuts import expect_errors
from tests.chaos.raw_answers import captured, http
from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 30
# Answers of streams, and of sites that take "stream": false.
RETRIED = {
    "57s-upstream-429": "57j-upstream-429",
    "58s-upstream-500": "58j-upstream-500",
    "59s-upstream-503": "59j-upstream-503",
    "60s-upstream-500-html": "60j-upstream-500-html",
    "61s-upstream-503-html": "61j-upstream-503-html",
    "63s-upstream-429-pretty": "57j-upstream-429",
    "64s-upstream-503-empty": "61j-upstream-503-html",
    "65s-upstream-refused-rst": "65j-upstream-refused-rst",
    "67-cut-fin": "65j-upstream-refused-rst",
    "68-cut-rst": "65j-upstream-refused-rst",
    "72s-upstream-timeout": "72j-upstream-timeout",
    "73-timeout-midstream": "72j-upstream-timeout",
    "74s-php-fatal-query": "74j-php-fatal-query",
    "75s-php-fatal-early": "75s-php-fatal-early",
    "76-php-fatal-midstream": "74j-php-fatal-query",
    "77-exception-midstream": "74j-php-fatal-query",
    "95-gateway-502": "95-gateway-502",
    "96s-gateway-504": "96j-gateway-504",
    "97-gateway-cut-midstream": "95-gateway-502",
    "98-worker-killed-midstream": "95-gateway-502",
    "b4-responses-upstream-429": "57j-upstream-429",
    "b5-responses-cut": "65j-upstream-refused-rst",
}
# What ends with the connection, as it has no last chunk.
CUT = {"97-gateway-cut-midstream", "98-worker-killed-midstream"}
FAILED = {
    "42s-message-missing": "42j-message-missing",
    "48s-message-513": "48j-message-513",
    "50s-banned-word": "50j-banned-word",
    "54s-upstream-400": "54j-upstream-400",
    "80-bad-json": "80-bad-json",
    "82-form-encoded": "82-form-encoded",
    "86-invalid-utf8-body": "86-invalid-utf8-body",
    "93-lone-surrogate": "93-lone-surrogate",
    "99-gateway-413": "99-gateway-413",
}
STOPPED = {
    "52s-limit": "52j-limit",
    "53s-not-allowed": "53j-not-allowed",
    "55s-upstream-401": "55j-upstream-401",
    "56s-upstream-404": "56j-upstream-404",
    "89-route-absent": "89-route-absent",
    "v253-52s-limit": "52j-limit",
    "94s-maintenance": "94s-maintenance",  # asks for 600 s, more than --max-retry-wait
}
REFRESHED = {
    "30s-nonce-missing": "30j-nonce-missing",
    "31s-nonce-invalid": "31j-nonce-invalid",
    "33s-nonce-expired": "33j-nonce-expired",
}


def _of_ai_engine(world: World) -> None:
    world.provider = "ai-engine"
    world.write_prompts(PROMPTS)
    world.rates = [(100, 1.0)]
    if world.rng.random() < 0.4:
        job = world.folder / "whole.yaml"
        job.write_text("version: 1\nprovider: {name: ai-engine, stream: false}\n")
        world.options += ["-j", str(job)]


async def _say(ask: Ask, row: str, rows: dict[str, str]) -> None:
    name = row if ask.body["stream"] else rows[row]
    await ask.send(captured(name).replace(b"try again in 20s", b"try again in 01s"))
    if name in CUT:
        ask.close()


@case(
    "service",
    "AI Engine's failures that pass, as captured but for a shorter wait, between good answers",
    tries=3,
    in_test=1,
    limits=True,
)
def rows_that_pass(world: World) -> None:
    """Provider limits and faults, PHP faults, gateways, cuts, empty answers: all are asked again and answered."""
    _of_ai_engine(world)
    rows = sorted(RETRIED)
    world.rng.shuffle(rows)

    async def answer(ask: Ask) -> None:
        number = int(ask.text.split()[1])
        if ask.attempt == 1 and number < len(rows):
            await _say(ask, rows[number], RETRIED)
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case(
    "service",
    "AI Engine's refusals of one prompt, each as captured, between good answers",
    tries=2,
    in_test=1,
    limits=True,
)
def rows_that_refuse_a_prompt(world: World) -> None:
    _of_ai_engine(world)
    ids = world.rng.sample(sorted(world.prompts), len(FAILED))
    refused = {world.prompts[key]: row for key, row in zip(ids, FAILED, strict=True)}

    async def answer(ask: Ask) -> None:
        if ask.text in refused:
            await _say(ask, refused[ask.text], FAILED)
        else:
            await ask.answer()

    with RawServer(world, answer) as server:
        world.run(codes={1})
        expect_errors(world, {key: {"invalid_request", "refused"} for key in ids})
        again = sum(server.asked[text] - 1 for text in refused)
        world.verdict.blame("wrong", f"{again} refused prompts were asked again", again)


@case(
    "service",
    "AI Engine's refusals of everything, each as captured, from some moment on; then all is well",
    tries=1,
    within_s=300,
)
def rows_that_stop(world: World) -> None:
    """A run for each kind: exit 4 with few requests, then the same command ends the job."""
    world.verdict.tries = 0
    for row in STOPPED:
        _stopped_by(world, row)


@case("service", "a quota that ends in mid-run, then is there again", tries=2, in_test=1, limits=True)
def quota_ends(world: World) -> None:
    _stopped_by(world, world.rng.choice(["52s-limit", "v253-52s-limit"]))


def _stopped_by(outer: World, row: str) -> None:
    folder = outer.folder / row
    folder.mkdir()
    world = World(folder, outer.rng.randrange(1 << 30))
    _of_ai_engine(world)
    world.concurrency = 4
    from_number, well = world.rng.randrange(1, 15), False

    async def answer(ask: Ask) -> None:
        if well or ask.number < from_number:
            await ask.answer()
        else:
            await _say(ask, row, STOPPED)

    with RawServer(world, answer) as server:
        world.run(codes={4})
        most = from_number + 2 * world.concurrency + 3
        world.verdict.blame("wrong", f"{row}: {server.chats} prompts were sent, {most} at most", server.chats > most)
        well = True
        world.finish()
    world.close()
    outer.verdict += world.verdict


@case("service", "nonces refused at random moments, each way as captured", tries=3, in_test=1, limits=True)
def rows_that_refresh(world: World) -> None:
    """Every chat that carries an old nonce is refused; a refusal costs no attempt, and one fetch serves all."""
    _of_ai_engine(world)
    world.concurrency = 16
    world.options += ["--retries", "0"]
    lives = sorted(world.rng.sample(range(2, PROMPTS), 3))
    served = fetched = 0

    async def session(ask: Ask) -> None:
        nonlocal fetched
        fetched += 1
        await ask.send(http(200, f'{{"success":true,"sessionId":"s","restNonce":"{fetched:010x}"}}'))

    async def answer(ask: Ask) -> None:
        nonlocal served
        current = 1 + sum(served >= life for life in lives)
        if int(ask.headers["x-wp-nonce"], 16) < current:
            await _say(ask, ask.rng.choice(sorted(REFRESHED)), REFRESHED)
            return
        served += 1
        await ask.answer()

    with RawServer(world, answer, session=session):
        world.run()
        world.judge()
        extra = fetched - 1 - len(lives)
        world.verdict.blame("wrong", f"{fetched} nonces were fetched where {1 + len(lives)} do", max(0, extra))


@case("service", "a nonce that expires under 64 prompts in flight", tries=2, in_test=1)
def nonce_expires_under_many(world: World) -> None:
    world.provider, world.concurrency = "ai-engine", 64
    world.write_prompts(300)
    uses = world.rng.choice([40, 70, 150])
    with world.serving(nonce_uses=uses, latency_ms=20):
        world.run()
        world.judge()
    sessions = sum(request["kind"] == "session" for request in world.log().requests)
    most = -(-300 // uses) + 1
    world.verdict.blame("wrong", f"{sessions} nonces were fetched, {most} at most are needed", max(0, sessions - most))


@case("service", "every nonce is refused, from the start or in mid-run", tries=2)
def nonce_refused_for_ever(world: World) -> None:
    _of_ai_engine(world)
    from_number = world.rng.choice([0, 12])

    async def answer(ask: Ask) -> None:
        if ask.number < from_number:
            await ask.answer()
        else:
            await _say(ask, "31s-nonce-invalid", REFRESHED)

    with RawServer(world, answer) as server:
        world.run(codes={4})
        most = from_number + 5 * world.concurrency
        world.verdict.blame("wrong", f"{server.chats} chats and {server.sessions} nonces", server.chats > most)
        world.verdict.blame("wrong", f"{server.sessions} nonces were fetched", server.sessions > 12)
    with RawServer(world, _well):
        world.finish()


async def _well(ask: Ask) -> None:
    await ask.answer()
