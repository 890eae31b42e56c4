"""``Chatgpt4Online`` keeps the shape of the client it is named after: class methods, parts of text, its exceptions."""

import inspect
import json
import re
from contextlib import aclosing

import aiohttp
import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.errors import AuthError, IncompleteError, ProtocolError, ProviderError, QuotaError, ServerError
from batchchat.providers import Chatgpt4Online
from batchchat.providers.generator import AsyncGeneratorProvider

SITE = "https://chatgpt4online.org"
SESSION = f"{SITE}/wp-json/mwai/v1/start_session"
SUBMIT = f"{SITE}/wp-json/mwai-ui/v1/chats/submit"
NONCE = {"success": True, "sessionId": "x", "restNonce": "a1b2c3d4e5"}
HELLO = [{"role": "user", "content": "Hello"}]


def live(text: str, **more) -> str:
    return f"data: {json.dumps({'type': 'live', 'data': text, **more})}\n\n"


def end(reply: str) -> str:
    return f"data: {json.dumps({'type': 'end', 'data': json.dumps({'success': True, 'reply': reply})})}\n\n"


def answer_with(mocked, *events: str, **settings) -> None:
    mocked.post(SESSION, payload=NONCE)
    settings = {"content_type": "text/event-stream"} | settings
    mocked.post(SUBMIT, body="".join(events), **settings)


async def parts(messages=HELLO, client=Chatgpt4Online, **settings) -> list[str]:
    return [part async for part in client.create_async_generator("gpt-4", messages, **settings)]


def sent(mocked, url: str) -> dict:
    """Arguments of the one request to the address."""
    (calls,) = [calls for (_, asked), calls in mocked.requests.items() if str(asked) == url]
    (call,) = calls
    return call.kwargs


def body_of(call: dict) -> dict:
    return json.loads(call["data"]) if call.get("data") is not None else call["json"]


def test_class_keeps_the_attributes_of_its_origin() -> None:
    assert issubclass(Chatgpt4Online, AsyncGeneratorProvider)
    assert Chatgpt4Online.url == SITE
    assert Chatgpt4Online.api_endpoint == "/wp-json/mwai-ui/v1/chats/submit"
    assert Chatgpt4Online.working is False
    assert Chatgpt4Online.default_model == "gpt-4"
    assert Chatgpt4Online.models == ["gpt-4"]


def test_methods_keep_the_signatures_of_their_origin() -> None:
    assert list(inspect.signature(Chatgpt4Online.get_nonce).parameters) == ["headers"]
    parameters = inspect.signature(Chatgpt4Online.create_async_generator).parameters
    assert list(parameters) == ["model", "messages", "proxy", "kwargs"]
    assert parameters["proxy"].default is None
    assert inspect.isasyncgenfunction(Chatgpt4Online.create_async_generator.__func__)


async def test_nonce_is_asked_for_with_the_given_headers(mocked_http) -> None:
    mocked_http.post(SESSION, payload=NONCE)
    assert await Chatgpt4Online.get_nonce({"User-Agent": "mine", "X-WP-Nonce": "stale"}) == "a1b2c3d4e5"
    headers = sent(mocked_http, SESSION)["headers"]
    assert headers["User-Agent"] == "mine"
    assert "x-wp-nonce" not in {name.lower() for name in headers}, "a stale nonce would be refused"


async def test_newer_nonce_counts(mocked_http) -> None:
    mocked_http.post(SESSION, payload=NONCE | {"new_token": "f6f7f8f9f0"})
    assert await Chatgpt4Online.get_nonce({}) == "f6f7f8f9f0"


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_nonce_request_with_a_bad_status_raises_what_callers_catch(mocked_http, status: int) -> None:
    mocked_http.post(re.compile(r".*start_session$"), status=status, body="<html>no</html>", repeat=True)
    mocked_http.post(re.compile(r".*rest_route=.*"), status=status, body="<html>no</html>", repeat=True)
    with pytest.raises(aiohttp.ClientError) as caught:
        await Chatgpt4Online.get_nonce({})
    assert caught.value.status == status


async def test_nonce_request_that_cannot_be_made_raises_what_callers_catch(mocked_http) -> None:
    mocked_http.post(SESSION, exception=aiohttp.ClientConnectionError("no route"))
    with pytest.raises(aiohttp.ClientError):
        await Chatgpt4Online.get_nonce({})


async def test_nonce_answer_that_is_no_json_raises_what_callers_catch(mocked_http) -> None:
    mocked_http.post(SESSION, body="<html>Checking your browser</html>", content_type="text/html")
    with pytest.raises(json.JSONDecodeError):
        await Chatgpt4Online.get_nonce({})


async def test_nonce_answer_without_a_nonce_names_what_was_there(mocked_http) -> None:
    mocked_http.post(SESSION, payload={"success": True, "sessionId": "x"})
    with pytest.raises(ProtocolError, match="sessionId, success"):
        await Chatgpt4Online.get_nonce({})


async def test_parts_are_yielded_as_they_stream(mocked_http) -> None:
    answer_with(mocked_http, live("Hel"), live("lo"), end("Hello"))
    assert await parts() == ["Hel", "lo"]


async def test_what_the_end_adds_is_the_last_part(mocked_http) -> None:
    answer_with(mocked_http, live("Hel"), live("lo"), end("Hello!"))
    assert await parts() == ["Hel", "lo", "!"]


async def test_answer_that_only_the_end_holds_is_one_part(mocked_http) -> None:
    answer_with(mocked_http, end("Hello!"))
    assert await parts() == ["Hello!"]


async def test_stripped_reply_repeats_nothing(mocked_http) -> None:
    answer_with(mocked_http, live("Hello"), live(" \n"), end("Hello"))
    assert "".join(await parts()).strip() == "Hello"


async def test_thoughts_and_states_of_the_site_are_no_parts(mocked_http) -> None:
    answer_with(mocked_http, live("Searching", subtype="status"), live("hmm", subtype="thinking"),
                live("Hel", subtype="content"), live("lo"), end("Hello"))  # fmt: skip
    assert await parts() == ["Hel", "lo"]


async def test_request_carries_nonce_bot_history_and_prompt(mocked_http) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    answer_with(mocked_http, end("d"))
    await parts(messages, headers={"User-Agent": "mine"}, temperature=0.5)
    call = sent(mocked_http, SUBMIT)
    assert call["headers"]["X-WP-Nonce"] == "a1b2c3d4e5"
    assert call["headers"]["User-Agent"] == "mine"
    body = body_of(call)
    assert (body["botId"], body["newMessage"], body["stream"]) == ("default", "c", True)
    assert body["messages"] == messages[:2]
    assert body["temperature"] == 0.5
    assert body["chatId"]


async def test_whole_answer_in_one_call(mocked_http) -> None:
    answer_with(mocked_http, live("Hel"), end("Hello"))
    assert await Chatgpt4Online.create_async("gpt-4", HELLO) == "Hello"


@pytest.mark.parametrize("status", [400, 429, 500, 502])
async def test_bad_status_raises_what_callers_catch(mocked_http, status: int) -> None:
    answer_with(mocked_http, '{"code":"x","message":"no"}', status=status, content_type="application/json")
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await parts()
    assert caught.value.status == status
    assert isinstance(caught.value.__cause__, ProviderError)


async def test_connection_that_fails_raises_what_callers_catch(mocked_http) -> None:
    mocked_http.post(SESSION, payload=NONCE)
    mocked_http.post(SUBMIT, exception=aiohttp.ServerDisconnectedError())
    with pytest.raises(aiohttp.ClientError):
        await parts()


async def test_event_that_is_no_json_raises_what_callers_catch(mocked_http) -> None:
    answer_with(mocked_http, live("Hel"), "data: {not json}\n\n", end("Hello"))
    taken = []
    with pytest.raises(json.JSONDecodeError):
        async for part in Chatgpt4Online.create_async_generator("gpt-4", HELLO):
            taken.append(part)
    assert taken == ["Hel"]


async def test_error_event_raises_the_error_it_tells(mocked_http) -> None:
    error = {"type": "error", "data": "The server had an error while processing your request. (server_error)"}
    answer_with(mocked_http, live("Hel"), f"data: {json.dumps(error)}\n\n")
    with pytest.raises(ServerError) as caught:
        await parts()
    assert caught.value.partial == "Hel"


async def test_usage_limit_told_in_prose_is_a_quota(mocked_http) -> None:
    error = {"type": "error", "data": "You have reached the limit."}
    answer_with(mocked_http, f"data: {json.dumps(error)}\n\n")
    with pytest.raises(QuotaError):
        await parts()


async def test_cut_stream_is_no_answer(mocked_http) -> None:
    answer_with(mocked_http, live("Hel"))
    with pytest.raises(IncompleteError):
        await parts()


class Mine(Chatgpt4Online):
    """A subclass with its own site, as callers of the original make one."""

    api_endpoint = "/blog/wp-json/mwai-ui/v1/chats/submit"


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch):
    async with DevServer() as server:
        monkeypatch.setattr(Mine, "url", server.base_url)
        yield server


async def test_address_and_endpoint_of_a_subclass_count(site: DevServer) -> None:
    assert "".join(await parts(client=Mine)) == "Echo: Hello"
    (chat,) = site.chats
    assert chat.path == Mine.api_endpoint
    assert chat.nonce
    assert Chatgpt4Online.url == SITE


async def test_nonce_of_a_subclass_is_its_sites(site: DevServer) -> None:
    assert await Mine.get_nonce({"X-Mine": "1"}) == site.nonce.current
    (session,) = site.sessions
    assert session.headers["x-mine"] == "1"


async def test_expired_nonce_is_fetched_anew_in_one_call(site: DevServer) -> None:
    site.scenario = Scenario(nonce_uses=1)
    assert "".join(await parts(client=Mine)) == "Echo: Hello"
    assert "".join(await parts(client=Mine)) == "Echo: Hello"


async def test_site_that_refuses_every_nonce_is_an_error_of_its_own(site: DevServer) -> None:
    site.scenario = Scenario(nonce_refused=True)
    with pytest.raises((AuthError, aiohttp.ClientResponseError)) as caught:
        await parts(client=Mine)
    assert caught.value.status == 403


async def test_leaving_early_closes_the_connection(site: DevServer) -> None:
    site.scenario = Scenario(stall_midway=1)
    async with aclosing(Mine.create_async_generator("gpt-4", HELLO)) as answer:
        async for part in answer:
            assert part
            break
    await site.wait_for_requests(2)


async def test_timeout_bounds_one_call(site: DevServer) -> None:
    site.scenario = Scenario(stall_before=1)
    with pytest.raises(ProviderError) as caught:
        await parts(client=Mine, timeout=0.2)
    assert caught.value.type == "timeout"


async def test_proxy_is_asked_for_the_site(site: DevServer) -> None:
    """The server stands in for a proxy: it is asked with the whole address of a site that does not exist."""

    class Far(Mine):
        url = "http://site.invalid"

    site.scenario = Scenario(any_host=True)
    assert "".join(await parts(client=Far, proxy=site.base_url)) == "Echo: Hello"
    assert [request.headers["host"] for request in site.requests] == ["site.invalid", "site.invalid"]


@pytest.mark.parametrize("fault", ["cut_mid_event", "cut_mid_character", "cut_no_end", "cut_reset"])
async def test_stream_that_is_cut_on_the_wire_is_a_provider_error(site: DevServer, fault: str) -> None:
    site.scenario = Scenario(**{fault: 1})
    with pytest.raises(IncompleteError):
        await parts(client=Mine)


async def test_connection_that_is_reset_before_an_answer_raises_what_callers_catch(site: DevServer) -> None:
    site.scenario = Scenario(reset_before=1)
    with pytest.raises((aiohttp.ClientError, ConnectionError)) as caught:
        await parts(client=Mine)
    assert isinstance(caught.value, aiohttp.ClientError)


async def test_site_that_cannot_be_reached_raises_what_callers_catch() -> None:
    class Gone(Mine):
        url = "http://127.0.0.1:9"

    for call in (Gone.get_nonce({}), parts(client=Gone)):
        with pytest.raises(aiohttp.ClientError):
            await call
