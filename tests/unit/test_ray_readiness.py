"""The start of the workers of a cluster, which a stop ends at any moment."""

import asyncio

import pytest

import batchchat.ray.readiness
from batchchat.admission import Admission
from batchchat.errors import ConfigError
from batchchat.limits import Limiter
from batchchat.ray.readiness import await_ready


class Away:
    """A worker that the cluster has no room for."""

    async def ready(self):
        await asyncio.Event().wait()


@pytest.mark.parametrize("before", [True, False])
async def test_a_stop_ends_the_wait_for_workers(before) -> None:
    """Also one that came just before it: nobody waits for what is not to be asked, and nothing is told to be wrong."""
    admission = Admission(Limiter())
    if before:
        admission.close()
    waiting = asyncio.create_task(await_ready([Away()], admission))
    await asyncio.sleep(0)
    if not before:
        admission.close()
    async with asyncio.timeout(10):
        await waiting


async def test_no_room_for_any_worker_is_told(monkeypatch) -> None:
    monkeypatch.setattr(batchchat.ray.readiness, "_READY_S", 0.0)
    with pytest.raises(ConfigError, match="the cluster has no room for one"):
        await await_ready([Away()], Admission(Limiter()))
