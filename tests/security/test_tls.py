"""Certificates are verified everywhere: services, proxies, and services behind proxies; a file only adds authorities."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from batchchat.config import load_job
from batchchat.errors import ConfigError, NetworkError
from batchchat.providers.base import ProviderContext
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from batchchat.providers.tls import load_trust
from batchchat.runner import run_job
from tests.runs import BATCHCHAT, finish, start_command, write_prompts
from tests.wire import HELLO, Wire, chunk, stream

PASSWORD = "pr0xy-passw0rd"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes("# die Stelle unserer Behörde\n".encode() + authority.cert_pem.bytes())
    return str(path)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


class Proxy:
    """An HTTP proxy that knows CONNECT alone."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            self.heads.append(head := await reader.readuntil(b"\r\n\r\n"))
            host, _, port = head.split()[1].decode().rpartition(":")
            ahead, behind = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._pump(reader, behind), self._pump(ahead, writer))
        writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.closing(sink), contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def listening(serve: Any, certificate: trustme.LeafCert | None) -> AsyncIterator[int]:
    """The port of a server, with TLS where it has a certificate."""
    context = None if certificate is None else server_context(certificate)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def asked(
    certificate: trustme.LeafCert,
    trusted: str | None,
    *,
    host: str = "127.0.0.1",
    proxy: trustme.LeafCert | bool = False,
) -> tuple[str, Wire, Proxy]:
    """The answer of a service with that certificate.

    Args:
        trusted: The CA file of the client.
        proxy: Whether a proxy stands between; with a certificate, one that is spoken to by TLS.
    """
    wire, between = Wire(stream(chunk("hello", "stop"), "[DONE]")), Proxy()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(wire.serve, certificate))
        address = None
        if proxy:
            own = proxy if isinstance(proxy, trustme.LeafCert) else None
            proxy_port = await stack.enter_async_context(listening(between.serve, own))
            address = f"{'http' if own is None else 'https'}://me:{PASSWORD}@127.0.0.1:{proxy_port}"
        config = OpenAIChatConfig(base_url=f"https://{host}:{port}", model="m", headers={"X-Secret": "s3cret-value"})
        context = ProviderContext(tls=load_trust(trusted), proxy=address)
        provider = await stack.enter_async_context(OpenAIChat(config, context))
        try:
            return str((await provider.complete(HELLO)).text), wire, between
        except NetworkError as error:
            assert wire.requests == []  # nothing of the request, least of all a key, was told to it
            assert PASSWORD not in str(error)
            return f"{'final' if error.stops_run else 'retried'}: {error}", wire, between


async def test_certificate_of_the_named_authority_is_accepted(authority: trustme.CA, ca_file: str) -> None:
    assert (await asked(authority.issue_cert("127.0.0.1"), ca_file))[0] == "hello"
    assert (await asked(authority.issue_cert("localhost"), ca_file, host="localhost"))[0] == "hello"


@pytest.mark.parametrize("fault", ["no file", "other authority", "self-signed"])
async def test_certificate_of_an_unknown_authority_is_final_and_told_in_a_sentence(
    authority: trustme.CA, stranger: trustme.CA, ca_file: str, fault: str
) -> None:
    certificate = (authority if fault == "no file" else stranger).issue_cert("127.0.0.1")
    if fault == "self-signed":  # the chain ends in a certificate that vouches for itself
        certificate.cert_chain_pems.append(stranger.cert_pem)
    told, _, _ = await asked(certificate, None if fault == "no file" else ca_file)
    assert told.startswith("final: TLS: the certificate of 127.0.0.1:")
    assert told.endswith("; if its authority is a private one, name that with --ca-file")
    assert "_ssl.c" not in told


@pytest.mark.parametrize(
    ("names", "dates", "why"),
    [
        (["example.org"], (None, None), "not valid for '127.0.0.1'"),
        (["127.0.0.1"], (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)), "has expired"),
        (["127.0.0.1"], (datetime(2990, 1, 1, tzinfo=UTC), datetime(2999, 2, 1, tzinfo=UTC)), "not yet valid"),
    ],
)
async def test_wrong_certificate_of_the_named_authority_is_refused(
    authority: trustme.CA, ca_file: str, names: list[str], dates: tuple[Any, Any], why: str
) -> None:
    told, _, _ = await asked(authority.issue_cert(*names, not_before=dates[0], not_after=dates[1]), ca_file)
    assert told.startswith("final: TLS: the certificate of 127.0.0.1:")
    assert why in told
    assert "--ca-file" not in told  # that would not help


@pytest.mark.parametrize("encrypted", [False, True])
async def test_service_behind_a_proxy_is_verified(authority: trustme.CA, ca_file: str, encrypted: bool) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    told, wire, between = await asked(certificate, ca_file, proxy=certificate if encrypted else True)
    assert told == "hello"
    assert len(wire.requests) == len(between.heads) == 1
    assert b"Proxy-Authorization: Basic" in between.heads[0]
    assert "proxy-authorization" not in wire.requests[0][1]


async def test_untrusted_service_behind_a_proxy_is_refused(
    authority: trustme.CA, stranger: trustme.CA, ca_file: str
) -> None:
    told, _, between = await asked(stranger.issue_cert("127.0.0.1"), ca_file, proxy=authority.issue_cert("127.0.0.1"))
    assert told.startswith("final: TLS: the certificate of 127.0.0.1:")
    assert b"s3cret-value" not in b"".join(between.heads)


async def test_untrusted_proxy_gets_neither_password_nor_request(
    authority: trustme.CA, stranger: trustme.CA, ca_file: str
) -> None:
    told, _, between = await asked(authority.issue_cert("127.0.0.1"), ca_file, proxy=stranger.issue_cert("127.0.0.1"))
    assert told.startswith("final: TLS: the certificate of 127.0.0.1:")
    assert between.heads == []


def test_named_file_adds_to_the_system_and_never_weakens(ca_file: str) -> None:
    plain, context = ssl.create_default_context(), load_trust(ca_file)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] == plain.cert_store_stats()["x509_ca"] + 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "the file cannot be read: No such file or directory"),
        ("folder", "the file cannot be read|none that can be read"),
        (b"", "found none"),
        (b"not a certificate", "found none"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "found none"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 is damaged"),
        (b"-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", "certificate 1 is damaged"),
        (b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n", "certificate 1 is damaged"),
        (b"\0" * ((16 << 20) + 1), "larger than 16 MiB"),
    ],
)
def test_file_without_certificates_is_a_usage_error(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "ca.pem"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        load_trust(str(path))
    assert str(caught.value).startswith(f"{path}: ca_file: ")


def test_pipe_as_certificate_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="none that can be read"):
        load_trust(str(tmp_path / "pipe"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_command_with_a_missing_certificate_file_ends_with_2(tmp_path: Path, command: str) -> None:
    prompts = write_prompts(tmp_path / "in.jsonl", 1)
    arguments = [str(prompts), "-o", str(tmp_path / "out.jsonl"), "--provider", "openai", "--model", "m"]
    code, _, err = finish(
        start_command(
            [*BATCHCHAT, command, *arguments, "--base-url", "https://127.0.0.1:9", "--ca-file", str(tmp_path / "no")]
        )
    )
    assert code == 2
    assert "ca_file: the file cannot be read: No such file or directory" in err
    assert not (tmp_path / "out.run.json").exists()


async def test_results_never_overwrite_the_certificates(tmp_path: Path, ca_file: str) -> None:
    prompts = write_prompts(tmp_path / "in.jsonl", 1)
    job = load_job(None, {"input": [str(prompts)], "output.path": ca_file, "ca_file": ca_file,
                          "provider.name": "openai", "provider.model": "m",
                          "provider.base_url": "https://127.0.0.1:9"})  # fmt: skip
    with pytest.raises(ConfigError, match="both input and results file"):
        await run_job(job)


async def test_run_whose_service_is_untrusted_stops_at_once(tmp_path: Path, authority: trustme.CA) -> None:
    """Exit code 4 and one request a prompt, whatever the retries: the next attempt would meet the same certificate."""
    prompts = write_prompts(tmp_path / "in.jsonl", 20)
    async with listening(Wire(b"").serve, authority.issue_cert("127.0.0.1")) as port:
        job = load_job(None, {"input": [str(prompts)], "output.path": str(tmp_path / "out.jsonl"),
                              "provider.name": "openai", "provider.model": "m", "concurrency": 1,
                              "retry.retries": 50, "provider.base_url": f"https://127.0.0.1:{port}"})  # fmt: skip
        report = await run_job(job, environ={})
    assert report.exit_code == 4
    lines = (tmp_path / "out.errors.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all('"attempts":1,' in line for line in lines)


def test_system_authorities_may_be_replaced_by_the_usual_variable(
    tmp_path: Path, authority: trustme.CA, ca_file: str
) -> None:
    """``SSL_CERT_FILE`` counts as it does for other programs."""
    import os

    prompts = write_prompts(tmp_path / "in.jsonl", 1)

    async def run_once(environ: dict[str, str]) -> int:
        async with listening(
            Wire(stream(chunk("hello", "stop"), "[DONE]")).serve, authority.issue_cert("127.0.0.1")
        ) as port:
            command = [*BATCHCHAT, "run", str(prompts), "-o", str(tmp_path / "out.jsonl"), "--provider", "openai",
                       "--model", "m", "--base-url", f"https://127.0.0.1:{port}", "-q"]  # fmt: skip
            process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environ})
            return await process.wait()

    assert asyncio.run(run_once({})) == 1 or not (tmp_path / "out.jsonl").read_text()
    assert asyncio.run(run_once({"SSL_CERT_FILE": ca_file})) == 0
