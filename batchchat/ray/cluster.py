"""The Ray cluster: the one module that knows Ray's calls, and what can go wrong with them, a sentence each."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

from batchchat.errors import ConfigError
from batchchat.ray.actor import Actor
from batchchat.ray.desk import Desk
from batchchat.ray.words import DeskOpening, WorkerOpening
from batchchat.ray.worker import ShardWorker

__all__ = ["WORKER_CPUS", "Cluster", "count_room", "place_desk"]

_CONNECT_S, _ANSWERS_S, _END_S = 90.0, 5.0, 30.0
# What a worker needs; less than a CPU, so that a lost node's workers find room on the others.
WORKER_CPUS = 0.25
# How often Ray gives a call to a worker again that died meanwhile.
_RETRIES = 3
_HEAD = "node:__internal_head__"
# Of a cluster that is started for a run: all that travels is a few shards at a time.
_STORE_BYTES = 128 << 20


class Cluster:
    """A connection to a cluster, or one that is started on this machine for the run; entered, it is there.

    Args:
        address: ``host:port`` of its head, ``auto`` for the one that this machine belongs to; None for one of the
            run's own, or the one that ``RAY_ADDRESS`` names.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._ray: Any = None
        self._actors: list[Actor] = []
        self._desk_name = f"batchchat-desk-{secrets.token_hex(8)}"
        self._thread: _RayThread | None = None

    async def __aenter__(self) -> "Cluster":
        try:
            # It tells nobody of its use, which its makers would learn of otherwise.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            self._ray = await asyncio.to_thread(_import_ray)
        except ImportError as error:
            raise ConfigError(
                "engine: ray needs Ray, which is not installed here: pip install 'batchchat[ray]'"
            ) from error
        if self._ray.is_initialized():  # by the program that this run is part of
            return self
        await self._reach()
        self._thread = _RayThread(self._ray, self._address)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._thread.connected()
        except TimeoutError:
            raise self._no_connection(f"no answer within {_CONNECT_S:.0f} s") from None
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise self._no_connection(" ".join(str(error).split())[:300]) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ray is None:
            return
        if self._thread is None:
            await asyncio.to_thread(self._end_actors)
        else:
            await self._thread.end(self._end_actors)

    def _end_actors(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)

    def room(self) -> int:
        """How many workers a job should have that does not say it: one for each CPU, and each node; blocks."""
        return count_room(self._ray)

    def start_desk(self, opening: DeskOpening) -> Actor:
        """The desk, on the head node, which is the one that is not lost without the cluster; blocks."""
        return self._kept(place_desk(self._ray, self._desk_name, opening))

    def start_worker(self, opening: WorkerOpening) -> Actor:
        """One worker, where Ray finds room."""
        worker = self._ray.remote(_Worker).options(
            num_cpus=WORKER_CPUS,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            max_concurrency=1000,
            scheduling_strategy="SPREAD",
        )
        return self._kept(worker.remote(opening, self._desk_name))

    def give_up(self, actor: Actor) -> None:
        """Ends an actor that Ray is not to start again; blocks."""
        with contextlib.suppress(Exception):  # of a cluster that is gone
            self._ray.kill(actor.handle)

    def _kept(self, handle: Any) -> Actor:
        actor = Actor(handle)
        self._actors.append(actor)
        return actor

    async def _reach(self) -> None:
        """Sees that somebody answers at a given address, which Ray would try for long.

        Raises:
            ConfigError: Nobody does.
        """
        if self._address in ("auto", "local"):
            return
        host, colon, port = self._address.rpartition(":")
        if "://" in self._address or not colon or not port.isdigit():
            raise ConfigError(
                f"ray_address: found {self._address!r}, expected auto, or HOST:PORT of the cluster's head, "
                "as 'ray start --head' tells it"
            )
        try:
            async with asyncio.timeout(_ANSWERS_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, OverflowError, TimeoutError) as error:
            raise self._no_connection(getattr(error, "strerror", None) or "no answer") from error
        writer.close()

    def _no_connection(self, why: str) -> ConfigError:
        where = "on this machine" if self._address == "local" else f"at {self._address}"
        return ConfigError(f"no Ray cluster can be used {where} ({why}); see --ray-address, or use --engine local")


def place_desk(ray: Any, name: str, opening: DeskOpening, kind: type[Desk] = Desk) -> Any:
    """Starts a desk on the head node; its handle. It ends with the last one."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"]]
    place = NodeAffinitySchedulingStrategy(heads[0], soft=False) if heads else "DEFAULT"
    desk = ray.remote(kind).options(
        name=name,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=100_000,
        scheduling_strategy=place,
    )
    return desk.remote(opening)


def count_room(ray: Any) -> int:
    """One for each CPU of the cluster, and each node; blocks."""
    alive = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1, len(alive), int(sum(alive)))


class _Worker(ShardWorker):
    """A worker as Ray makes it; it finds the desk by name, as a handle in its arguments may not outlive a restart."""

    def __init__(self, opening: WorkerOpening, desk_name: str) -> None:
        import ray

        super().__init__(opening, Actor(ray.get_actor(desk_name)))


def _import_ray() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        import ray._private.worker as ray_worker
        import ray.exceptions
    if hasattr(ray_worker, "listen_error_messages"):
        # It prints what becomes of workers on standard output, and there is no setting for it.
        ray_worker.listen_error_messages = lambda *_: None
    return ray


class _RayThread:
    """Connects and disconnects in a thread of its own: both may take long, and Ray's processes end with the thread
    that started them."""

    def __init__(self, ray: Any, address: str) -> None:
        self._ray, self._address = ray, address
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._end = threading.Event()
        self._before: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, name="batchchat-ray", daemon=True).start()

    async def connected(self) -> None:
        """Returns once it is.

        Raises:
            Exception: What Ray raised.
        """
        await asyncio.shield(self._connected)

    async def end(self, before: Callable[[], None]) -> None:
        """Disconnects, and stops what was started; not waited for without end.

        Args:
            before: Called there before that.
        """
        self._before = before
        self._end.set()
        await asyncio.wait([self._ended], timeout=_END_S)

    def _run(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._init()
        except BaseException as error:
            self._tell(self._connected, error)
        else:
            self._tell(self._connected, None)
            self._end.wait()
        try:
            with contextlib.suppress(Exception):  # of a cluster that is gone
                self._before()
            self._ray.shutdown()
        finally:
            self._tell(self._ended, None)

    def _init(self) -> None:
        own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if self._address == "local" else {}
        self._ray.init(
            address=self._address,
            namespace=f"batchchat-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **own,
        )

    def _tell(self, future: "asyncio.Future[None]", error: BaseException | None) -> None:
        def tell() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more
