"""A server on loopback: started and ended with ``async with``, asked about what it got."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from aiohttp import web

from batchchat.devserver.app import create_app
from batchchat.devserver.backend import Backend
from batchchat.devserver.nonces import NonceBook
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.state import RequestRecord, ServerState, worst_window
from batchchat.devserver.wire_log import own_faults_logger
from batchchat.errors import ConfigError
from batchchat.web_guard import Guard, Refusal
from batchchat.web_runner import end_runner

__all__ = ["DevServer"]

# Connections that may wait to be accepted, for clients that open a thousand at once; the system caps it.
_BACKLOG = 4096
# Where a server that listens on every address is reached from this machine.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class DevServer:
    """The development server.

    ```python
    async with DevServer(Scenario(error_500=0.1)) as server:
        await run(base_url=server.base_url)
        assert server.worst_window(1.0) <= 200
    ```

    Args:
        scenario: How to behave.
        host: A loopback address; with a token, any.
        port: 0 for any free one.
        keep_requests: Whether ``requests`` is kept.
        log_path: A file that gets one JSON line for each request as it arrives.
        log_ends: Whether it gets another when the answer is over.
        backend: What answers, entered by whoever made it; the echo where None.
        token: What every request must carry; see ``Guard``.

    Raises:
        ConfigError: ``host`` is no loopback address and there is no token, or (on entering) the port or the log
            cannot be had.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keep_requests: bool = True,
        log_path: str | None = None,
        log_ends: bool = False,
        backend: Backend | None = None,
        token: str | None = None,
    ) -> None:
        self._guard = Guard(host, token)
        self._host, self._port = host, port
        self._keep_requests, self._backend = keep_requests, backend
        self._log_path, self._log_ends = log_path, log_ends
        self._scenario = scenario or Scenario()
        self._state: ServerState | None = None
        self._runner: web.AppRunner | None = None
        self._base_url = ""

    async def __aenter__(self) -> Self:
        try:
            self._state = ServerState(
                self._scenario,
                keep_requests=self._keep_requests,
                log_path=self._log_path,
                log_ends=self._log_ends,
                backend=self._backend,
            )
        except OSError as error:
            raise ConfigError(f"the log {self._log_path!r} cannot be written: {error.strerror}") from error
        # A client that leaves ends its answer: without it, stalled handlers would pile up.
        self._runner = web.AppRunner(
            create_app(state=self._state, guard=self._refusal),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.5,
            logger=own_faults_logger(),
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._end()
            reason = error.strerror or str(error)
            raise ConfigError(
                f"{self._host}:{self._port} cannot be listened on: {reason}; choose another port"
            ) from error
        port = self._runner.addresses[0][1]
        host = _HERE.get(self._host, self._host)
        self._base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, without a trailing slash; of this machine also where it listens everywhere."""
        return self._base_url

    @property
    def scenario(self) -> Scenario:
        """How the server behaves; a new one counts from the next request on."""
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._scenario = scenario
        if self._state is not None:
            self._state.scenario = scenario

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far, in the order of arrival; health checks are not among them."""
        return self._running.requests

    @property
    def chats(self) -> list[RequestRecord]:
        """The requests that ask for an answer: submits and chat completions."""
        return [record for record in self.requests if record.kind == "chat"]

    @property
    def sessions(self) -> list[RequestRecord]:
        """The requests for a nonce."""
        return [record for record in self.requests if record.kind == "session"]

    @property
    def request_count(self) -> int:
        """How many requests have arrived, whether kept or not."""
        return self._running.request_count

    @property
    def nonce(self) -> NonceBook:
        """The nonces: which is current, and means to rotate or expire it."""
        return self._running.nonce

    @property
    def peak_in_flight(self) -> int:
        """The most chat requests that were open at one time."""
        return self._running.peak_in_flight

    @property
    def in_flight(self) -> int:
        """The chat requests that are open now."""
        return self._running.in_flight

    def worst_window(self, seconds: float) -> int:
        """The most requests, of any kind, that arrived within any window of that many seconds."""
        return worst_window([record.time_s for record in self.requests], seconds)

    async def wait_for_requests(self, count: int) -> None:
        """Returns as soon as that many requests of any kind have arrived since the start."""
        await self._running.wait_for_requests(count)

    def _refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        return None if self._scenario.any_host else self._guard.refusal(method, headers)

    @property
    def _running(self) -> ServerState:
        if self._state is None:
            raise RuntimeError("the server has not been started: use it with 'async with'")
        return self._state

    async def _end(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await end_runner(runner)
