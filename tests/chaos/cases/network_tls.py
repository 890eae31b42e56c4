"""Certificates that are wrong, handshakes that are cut, and proxies that fail."""

import ssl
from datetime import UTC, datetime

import trustme

from tests.chaos.cases.network_cuts import free_port
from tests.chaos.raw_answers import http
from tests.chaos.raw_server import Answer, Ask, RawServer
from tests.chaos.registry import case
from tests.chaos.relay import Relay
from tests.chaos.world import World

PROMPTS = 30


async def _answer(ask: Ask) -> None:
    await ask.answer()


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def _trusting(world: World) -> trustme.CA:
    """An authority that the world's runs trust, by option or by the environment."""
    authority = trustme.CA()
    path = world.folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    if world.rng.random() < 0.5:
        world.options += ["--ca-file", str(path)]
    else:
        world.environ["SSL_CERT_FILE"] = str(path)
    return authority


def _few(world: World, server: RawServer) -> None:
    world.verdict.blame("wrong", f"{server.chats} prompts were sent to a server that cannot be trusted", server.chats)


@case("network", "certificates of nobody, of the past, of another host; then the right one", tries=3, in_test=1)
def wrong_certificate(world: World) -> None:
    """The run stops with exit 4 before any prompt is sent; with a right certificate the same command goes on."""
    world.write_prompts(PROMPTS)
    authority = _trusting(world)
    past = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    wrong = world.rng.choice(
        [
            trustme.CA().issue_cert("127.0.0.1"),
            authority.issue_cert("127.0.0.1", **past),
            authority.issue_cert("example.org"),
        ]
    )
    with RawServer(world, _answer, tls=_context(wrong)) as server:
        world.run(codes={4})
        _few(world, server)
    with RawServer(world, _answer, tls=_context(authority.issue_cert("127.0.0.1"))):
        world.finish()


@case("network", "plain HTTP where TLS is expected, and TLS where plain HTTP is", tries=2)
def wrong_scheme(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--retries", "0"]
    plain = world.rng.random() < 0.5
    authority = _trusting(world)
    tls = _context(authority.issue_cert("127.0.0.1"))
    with RawServer(world, _answer, tls=None if plain else tls) as server:
        scheme = "https" if plain else "http"
        world.base_url = f"{scheme}://127.0.0.1:{server.port}"
        world.run(codes={4} if plain else {1, 4})
        _few(world, server)
    with RawServer(world, _answer, tls=tls):
        world.finish()


@case("network", "TLS handshakes that are cut, reset or answered with garbage, and connections cut later", tries=3)
def cut_handshakes(world: World) -> None:
    world.write_prompts(PROMPTS)
    authority = _trusting(world)
    tls = _context(authority.issue_cert("127.0.0.1"))

    async def answer(ask: Ask) -> None:
        if ask.attempt == 1 and ask.rng.random() < 0.3:
            await ask.send(ask.good[: ask.rng.randrange(30)])
            ask.writer.transport.abort()
            return
        await ask.answer()
        if ask.rng.random() < 0.5:
            ask.close()

    with RawServer(world, answer, tls=tls) as server, Relay(world, server.port, cut=0.15) as relay:
        world.base_url = f"https://127.0.0.1:{relay.port}"
        world.run()
        world.judge()


def _tunnel(tls: ssl.SSLContext) -> Answer:
    """A proxy that is the service itself."""

    async def connect(ask: Ask) -> None:
        await ask.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await ask.writer.start_tls(tls)

    return connect


@case(
    "network", "a proxy that is not there, refuses (407, 502), talks garbage or dies, then is well", tries=4, in_test=1
)
def proxy_fails(world: World) -> None:
    """With and without TLS behind it; the run ends with a documented code, and the same command ends the job."""
    world.write_prompts(PROMPTS)
    secure = world.rng.random() < 0.5
    authority = _trusting(world)
    tunnel = _tunnel(_context(authority.issue_cert("service.test")))
    fault = world.rng.choice(["absent", "407", "502", "garbage", "dies"])
    world.options += ["--retries", "1"]
    well = fault == "dies"

    async def connect(ask: Ask) -> None:
        await (tunnel(ask) if well else fail(ask))

    async def answer(ask: Ask) -> None:
        await (ask.answer() if well else fail(ask))

    async def fail(ask: Ask) -> None:
        if fault in ("407", "502"):
            await ask.send(http(int(fault), "<html>proxy</html>"))
        elif fault == "garbage":
            await ask.send(b"SSH-2.0-OpenSSH_9\r\n")
            ask.close()
        else:
            ask.reset()

    with RawServer(world, answer, connect=connect) as proxy:
        world.base_url = f"{'https' if secure else 'http'}://service.test"
        name = "HTTPS_PROXY" if secure else "HTTP_PROXY"
        port = free_port() if fault == "absent" else proxy.port
        world.environ[name] = f"http://user:secret@127.0.0.1:{port}"
        process = world.start()
        if fault == "dies":
            world.wait_for_chats(PROMPTS // 3, process)
            well = False
        world.end(process, {1, 4})
        if "secret" in world.said(process):
            world.verdict.blame("wrong", "the proxy's password was told")
        well = True
        world.environ[name] = f"http://user:secret@127.0.0.1:{proxy.port}"
        world.finish()
