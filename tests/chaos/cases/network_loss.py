"""A network that loses, delays, doubles and mixes up packets."""

from tests.chaos.lossy import lossy_loopback
from tests.chaos.registry import case
from tests.chaos.relay import Relay
from tests.chaos.world import World


@case("network", "a network that delays (30 ± 20 ms), loses (3 %), doubles and mixes up packets", tries=2)
def lossy(world: World) -> None:
    world.write_prompts(60)
    with lossy_loopback("delay", "30ms", "20ms", "loss", "3%", "duplicate", "1%", "reorder", "25%"):
        with world.serving(latency_ms=5, chunk_bytes=20, delta_interval_ms=2):
            world.run()
            world.judge()


@case(
    "network", "a line that delays bytes by up to 30 ms, now and then by 600 ms, and passes 1 to 300 at a time", tries=2
)
def slow_line(world: World) -> None:
    """What a lossy network looks like to programs, also where the system cannot make one."""
    world.write_prompts(60)
    with world.serving(latency_ms=5, chunk_bytes=20), Relay(world, int(world.base_url.rpartition(":")[2])):
        world.run()
        world.judge()
