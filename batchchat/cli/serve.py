"""``batchchat serve``: the development server, on its own or around a command."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchchat.devserver import DevServer
    from batchchat.devserver.backend import LocalBackend

__all__ = ["command"]

BASE_URL_VARIABLE = "BATCHCHAT_BASE_URL"
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command("serve", context_settings={"allow_interspersed_args": False})
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; others than loopback need a token.",
)
@click.option("--token-env", metavar="NAME", help="Environment variable with a token that every request must carry.")
@click.option(
    "--port",
    metavar="N",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free one.",
)
@click.option("--scenario", "scenario_path", metavar="FILE", help="YAML file that says how to misbehave.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="One scenario key; repeatable, wins.")
@click.option("--log", "log_path", metavar="FILE", help="Append one JSON line for each request as it arrives.")
@click.option("--log-ends", is_flag=True, help="Log the end of each answer too, and whether it was sent whole.")
@click.option(
    "--backend",
    type=click.Choice(["echo", "local"]),
    default="echo",
    show_default=True,
    help="What answers; local is a model on this machine.",
)
@click.option("--model", metavar="FILE", help="Another .gguf file for --backend local than the installed small model.")
@click.argument("arguments", metavar="[-- COMMAND [ARG]...]", nargs=-1, type=click.UNPROCESSED)
def command(
    host: str,
    token_env: str | None,
    port: int,
    scenario_path: str | None,
    settings: tuple[str, ...],
    log_path: str | None,
    log_ends: bool,
    backend: str,
    model: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Start the development server.

    It speaks the AI Engine and the OpenAI-compatible protocol on this machine, answers by echo or by a model on this
    machine, and misbehaves on request. When it is ready it prints {"base_url": "..."} as one line; SIGINT or SIGTERM
    ends it.

    With a COMMAND, it runs that with BATCHCHAT_BASE_URL set to the server's address, prints nothing itself, and ends
    with the command's exit code.
    """
    from batchchat.devserver import DevServer, Scenario, change_scenario, load_scenario
    from batchchat.web_guard import checked_token

    token = None if token_env is None else checked_token(os.environ.get(token_env), token_env)
    scenario = load_scenario(scenario_path) if scenario_path is not None else Scenario()
    scenario = change_scenario(scenario, settings)
    if model is not None and backend != "local":
        raise click.UsageError("--model: only --backend local runs a model")
    answering = _local_backend(model) if backend == "local" else None
    server = DevServer(
        scenario, host, port, keep_requests=False, log_path=log_path, log_ends=log_ends, backend=answering, token=token
    )
    main = _serve_around(server, arguments) if arguments else _serve(server)
    code = _run(_with_backend(answering, main))
    if code:
        raise click.exceptions.Exit(code)


def _run(main: Coroutine[Any, Any, int]) -> int:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def _local_backend(model: str | None) -> "LocalBackend":
    from batchchat.devserver.backend import LocalBackend

    return LocalBackend(model)


async def _with_backend(backend: "LocalBackend | None", main: Coroutine[Any, Any, int]) -> int:
    """Serves while the backend runs."""
    try:
        async with contextlib.nullcontext() if backend is None else backend:
            return await main
    finally:
        main.close()


async def _serve(server: "DevServer") -> int:
    stop = asyncio.Event()
    with _on_signals(lambda _: stop.set()):
        async with server:
            click.echo(json.dumps({"base_url": server.base_url}))
            sys.stdout.flush()
            await stop.wait()
    return 0


async def _serve_around(server: "DevServer", arguments: tuple[str, ...]) -> int:
    async with server:
        child = _start(arguments, server.base_url)
        if isinstance(child, int):
            return child
        # A terminal sends its Ctrl-C to the whole group, so that passing it on would make two of one.
        by_terminal = _shares_terminal()

        def forward(number: int) -> None:
            if not (by_terminal and number == signal.SIGINT):
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)

        with _on_signals(forward):
            code = await asyncio.to_thread(child.wait)
    return code if code >= 0 else 128 - code


def _start(arguments: tuple[str, ...], base_url: str) -> "subprocess.Popen[bytes] | int":
    """Starts the command; an exit code where that is impossible."""
    environment = {**os.environ, BASE_URL_VARIABLE: base_url}
    group = None if _shares_terminal() or os.name != "posix" else 0
    try:
        return subprocess.Popen(arguments, env=environment, process_group=group)  # noqa: S603
    except OSError as error:
        click.echo(f"batchchat: {arguments[0]}: the command cannot be run: {error.strerror}", err=True)
        return EXIT_NOT_FOUND if shutil.which(arguments[0]) is None else EXIT_NOT_EXECUTABLE


def _shares_terminal() -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        return sys.stdin.isatty()
    return False


@contextlib.contextmanager
def _on_signals(call: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, call, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
