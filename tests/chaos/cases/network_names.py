"""Names that cannot be resolved for a while or change, and addresses of which only some answer."""

import contextlib
import socket
import time

from tests.chaos.names import NAME, Names
from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.registry import Unavailable, case
from tests.chaos.world import World

PROMPTS = 60


async def _answer(ask: Ask) -> None:
    await ask.answer()


def _named(world: World, port: int) -> None:
    world.base_url = f"http://{NAME}:{port}"


@case("network", "the name cannot be resolved for the first seconds", tries=2, in_test=1)
def name_comes_late(world: World) -> None:
    world.write_prompts(PROMPTS)
    names = Names(world, *world.rng.choice([(), ("unknown",), ("failing",)]))
    with RawServer(world, _answer) as server:
        _named(world, server.port)
        process = world.start()
        time.sleep(world.rng.uniform(1.0, 2.5))
        names.are("127.0.0.1")
        world.end(process, {0})
        world.judge()


@case(
    "network", "the name moves to another address in mid-run and the old one refuses", tries=3, in_test=1, limits=True
)
def name_moves(world: World) -> None:
    """No connection to the old address is left, so that every request needs a new one."""
    world.write_prompts(PROMPTS)
    world.rates = [(30, 1.0)]
    names = Names(world, "127.0.0.1")
    with contextlib.ExitStack() as old:
        server = old.enter_context(RawServer(world, _answer))
        with RawServer(world, _answer, host="127.0.0.2", port=server.port):
            _named(world, server.port)
            process = world.start()
            world.wait_for_chats(PROMPTS // 3, process)
            names.are("127.0.0.2")
            old.close()
            world.end(process, {0})
    world.judge()


@case("network", "the name cannot be resolved for a while in mid-run, as connections break", tries=2)
def name_goes_and_comes(world: World) -> None:
    world.write_prompts(PROMPTS)
    names = Names(world, "127.0.0.1")

    async def answer(ask: Ask) -> None:
        await ask.answer()
        if ask.number > 10:
            ask.close()

    with RawServer(world, answer) as server:
        _named(world, server.port)
        process = world.start()
        world.wait_for_chats(10, process)
        names.are()
        time.sleep(world.rng.uniform(0.5, 1.5))
        names.are("127.0.0.1")
        world.end(process, {0})
        world.judge()


@case("network", "a name of several addresses, of IPv4 and IPv6, where only one answers", tries=4, in_test=1)
def one_address_answers(world: World) -> None:
    """The others refuse, or take connections and say nothing at all as their queue is full."""
    world.write_prompts(PROMPTS)
    world.options = ["--connect-timeout", "5s"]
    right = world.rng.choice(["::1", "127.0.0.1", "127.0.0.3"])
    if not _can_listen(right):
        raise Unavailable("no IPv6 here")
    others = [address for address in ("::1", "127.0.0.1", "127.0.0.2", "127.0.0.3") if address != right]
    addresses = [right, *world.rng.sample(others, world.rng.randint(1, 3))]
    world.rng.shuffle(addresses)
    Names(world, *addresses)
    with RawServer(world, _answer, host=right) as server, contextlib.ExitStack() as stack:
        _named(world, server.port)
        mute = [address for address in addresses if address != right and ":" not in address]
        if mute and world.rng.random() < 0.6:
            listener = stack.enter_context(socket.create_server((mute[0], server.port), backlog=0))
            for _ in range(2):  # its queue is full now
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        world.run()
        world.judge()


def _can_listen(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
