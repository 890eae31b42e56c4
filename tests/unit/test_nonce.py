"""One nonce for all workers: fetched once, rotated, refreshed once, kept on disk."""

import asyncio
import os
import stat
import time
from pathlib import Path

import orjson
import pytest

from batchchat.errors import AuthError, NetworkError
from batchchat.providers.nonce import NonceCache
from batchchat.providers.nonce_store import NonceStore, StoredNonce
from tests.virtual_time import run_virtual

SITE = "http://127.0.0.1:1"


class Fetch:
    """Hands out n1, n2, … after a moment."""

    def __init__(self, *, fail_first: int = 0, same: bool = False) -> None:
        self.calls, self._fail_first, self._same = 0, fail_first, same

    async def __call__(self) -> str:
        self.calls += 1
        number = self.calls
        await asyncio.sleep(0.01)
        if number <= self._fail_first:
            raise NetworkError("down")
        return "n1" if self._same else f"n{number}"


async def test_many_waiters_share_one_fetch() -> None:
    fetch = Fetch()
    cache = NonceCache(fetch)
    nonces = await asyncio.gather(*(cache.get() for _ in range(64)))
    assert {nonce.value for nonce in nonces} == {"n1"}
    assert fetch.calls == 1


def test_failed_fetch_is_the_failure_of_one_and_the_others_wait_for_the_next() -> None:
    async def main() -> tuple[list, int, float]:
        fetch = Fetch(fail_first=3)
        cache = NonceCache(fetch)
        began = asyncio.get_running_loop().time()
        results = await asyncio.gather(*(cache.get() for _ in range(8)), return_exceptions=True)
        return results, fetch.calls, asyncio.get_running_loop().time() - began

    results, calls, took_s = run_virtual(main())
    assert [type(result) for result in results[:3]] == [NetworkError] * 3, "each began one"
    assert {result.value for result in results[3:]} == {"n4"}
    assert calls == 4
    assert took_s > 0.3, "they do not come all at once"


def test_fetch_that_fails_for_ever_is_told_to_each_once() -> None:
    async def main() -> tuple[list, int]:
        fetch = Fetch(fail_first=1000)
        cache = NonceCache(fetch)
        return await asyncio.gather(*(cache.get() for _ in range(8)), return_exceptions=True), fetch.calls

    results, calls = run_virtual(main())
    assert [type(result) for result in results] == [NetworkError] * 8
    assert calls == 8


async def test_fetch_that_is_refused_for_good_is_told_to_every_waiter() -> None:
    calls = 0

    async def fetch() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise AuthError("closed")

    cache = NonceCache(fetch)
    results = await asyncio.gather(*(cache.get() for _ in range(8)), return_exceptions=True)
    assert [type(result) for result in results] == [AuthError] * 8
    assert calls == 1


def test_cancelled_beginner_of_a_failed_fetch_leaves_the_others_another() -> None:
    async def main() -> tuple[list, int]:
        fetch = Fetch(fail_first=1)
        cache = NonceCache(fetch)
        tasks = [asyncio.create_task(cache.get()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), fetch.calls

    (cancelled, *others), calls = run_virtual(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert {nonce.value for nonce in others} == {"n2"}
    assert calls == 2


async def test_cancelled_waiter_does_not_end_the_fetch_for_the_others() -> None:
    fetch = Fetch()
    cache = NonceCache(fetch)
    first, second = (asyncio.create_task(cache.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).value == "n1"
    assert fetch.calls == 1


async def refused(cache: NonceCache, nonce) -> None:
    cache.release(nonce)
    await cache.refuse(nonce)


async def taken(cache: NonceCache, count: int):
    nonce = await cache.get()
    nonce.pending += count
    return nonce


async def test_fifty_refusals_make_one_refresh() -> None:
    fetch = Fetch()
    cache = NonceCache(fetch)
    nonce = await taken(cache, 51)
    cache.accept(nonce)
    cache.release(nonce)
    await asyncio.gather(*(refused(cache, nonce) for _ in range(50)))
    assert {fresh.value for fresh in await asyncio.gather(*(cache.get() for _ in range(50)))} == {"n2"}
    assert fetch.calls == 2


@pytest.mark.parametrize("same", [False, True])
async def test_second_fresh_nonce_refused_means_auth(same: bool) -> None:
    """Also where the site hands out one and the same nonce."""
    cache = NonceCache(Fetch(same=same))
    nonce = await taken(cache, 16)
    await asyncio.gather(*(refused(cache, nonce) for _ in range(16)))
    nonce = await taken(cache, 16)
    results = await asyncio.gather(*(refused(cache, nonce) for _ in range(16)), return_exceptions=True)
    assert all(isinstance(result, AuthError) for result in results)


async def test_refusals_that_overtake_slow_answers_are_not_auth() -> None:
    """A nonce good for one use: its refusals come before the answer that used it, time after time."""
    cache = NonceCache(Fetch())
    for _ in range(5):
        nonce = await taken(cache, 3)
        refusals = [asyncio.create_task(refused(cache, nonce)) for _ in range(2)]
        await asyncio.sleep(0)
        cache.accept(nonce)
        cache.release(nonce)
        await asyncio.gather(*refusals)
    assert (await cache.get()).value == "n6"


async def test_offered_nonce_is_adopted_without_a_fetch() -> None:
    fetch = Fetch()
    cache = NonceCache(fetch)
    first = await cache.get()
    cache.adopt(first, "newer")
    assert (await cache.get()).value == "newer"
    assert fetch.calls == 1


async def test_late_answer_to_an_older_nonce_replaces_nothing() -> None:
    cache = NonceCache(Fetch())
    first = await cache.get()
    cache.adopt(first, "newer")
    cache.adopt(first, "stale")
    newer = await cache.get()
    assert newer.value == "newer"
    cache.adopt(newer, first.value)
    assert (await cache.get()).value == "newer"


async def test_refusal_of_an_older_nonce_leaves_the_newer_one() -> None:
    fetch = Fetch()
    cache = NonceCache(fetch)
    first = await taken(cache, 1)
    cache.accept(first)
    cache.adopt(first, "newer")
    await refused(cache, first)
    assert (await cache.get()).value == "newer"
    assert fetch.calls == 1


def test_nonce_older_than_twelve_hours_is_fetched_anew() -> None:
    async def aged() -> list[str]:
        cache = NonceCache(Fetch())
        values = [(await cache.get()).value]
        await asyncio.sleep(11.9 * 3600)
        values.append((await cache.get()).value)
        await asyncio.sleep(0.2 * 3600)
        values.append((await cache.get()).value)
        return values

    assert run_virtual(aged()) == ["n1", "n1", "n2"]


def stored_file(folder: Path) -> Path:
    (path,) = folder.glob("nonce-*.json")
    return path


async def test_next_run_starts_without_a_fetch(tmp_path: Path) -> None:
    first = NonceCache(Fetch(), store=NonceStore(str(tmp_path), SITE))
    await first.get()
    await first.close()
    assert stat.S_IMODE(os.stat(stored_file(tmp_path)).st_mode) == 0o600
    fetch = Fetch()
    second = NonceCache(fetch, store=NonceStore(str(tmp_path), SITE))
    assert (await second.get()).value == "n1"
    assert fetch.calls == 0
    await second.close()


async def test_stored_nonce_that_is_refused_is_fetched_and_replaced(tmp_path: Path) -> None:
    NonceStore(str(tmp_path), SITE).write(StoredNonce(value="old", age_s=60))
    fetch = Fetch()
    cache = NonceCache(fetch, store=NonceStore(str(tmp_path), SITE))
    nonce = await taken(cache, 1)
    assert nonce.value == "old"
    await refused(cache, nonce)
    assert (await cache.get()).value == "n1"
    await cache.close()
    assert orjson.loads(stored_file(tmp_path).read_bytes())["nonce"] == "n1"


@pytest.mark.parametrize("age_s", [12 * 3600 + 1, -60])
def test_store_gives_no_nonce_that_is_too_old_or_from_the_future(tmp_path: Path, age_s: float) -> None:
    store = NonceStore(str(tmp_path), SITE)
    store.write(StoredNonce(value="n", age_s=0))
    content = orjson.loads(stored_file(tmp_path).read_bytes())
    content["obtained_at"] = time.time() - age_s
    stored_file(tmp_path).write_bytes(orjson.dumps(content))
    assert store.read(12 * 3600.0) is None


def test_older_nonce_does_not_replace_a_newer_one_on_disk(tmp_path: Path) -> None:
    store = NonceStore(str(tmp_path), SITE)
    store.write(StoredNonce(value="newer", age_s=10))
    store.write(StoredNonce(value="older", age_s=100))
    stored = store.read(3600)
    assert stored is not None
    assert stored.value == "newer"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"nonce": 3}', b'{"site": "other", "nonce": "n", "obtained_at": 1}']
)
def test_damaged_store_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    store = NonceStore(str(tmp_path), SITE)
    store.write(StoredNonce(value="n", age_s=0))
    stored_file(tmp_path).write_bytes(content)
    assert store.read(3600) is None
    store.forget("n")


def test_unwritable_store_only_tells_its_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = NonceStore(str(tmp_path / "file" / "below"), SITE)
    store.write(StoredNonce(value="n", age_s=0))
    assert store.trouble is not None
    assert store.read(3600) is None


def test_sites_do_not_share_a_nonce(tmp_path: Path) -> None:
    NonceStore(str(tmp_path), "http://a").write(StoredNonce(value="n", age_s=0))
    assert NonceStore(str(tmp_path), "http://b").read(3600) is None
