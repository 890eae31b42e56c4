"""One nonce for all workers of a run, kept on disk for the next run.

WordPress gives the same REST nonce to every anonymous caller, so one is enough; it lives 12 to 24 hours, and a
service may hand out a newer one with any answer.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from batchchat.errors import AuthError, ProviderError
from batchchat.providers.base import SharedNonce
from batchchat.providers.nonce_store import NonceStore, StoredNonce

__all__ = ["Nonce", "NonceCache", "is_nonce"]

MAX_AGE_S = 12 * 3600.0
_BARREN_FETCHES = 2
_VERDICT_S = 1.0
_MOST_RETIRED = 1000
# Those who wait take turns in fetching where it fails, this far apart, so that they do not come all at once.
_FETCH_AGAIN_S = 0.1
_MOST_CHARS = 256  # WordPress has 10


def is_nonce(value: object) -> bool:
    """Whether a value that a service hands out, or that was stored, may go into a header as a nonce."""
    return isinstance(value, str) and value.isascii() and value.isalnum() and len(value) <= _MOST_CHARS


class Nonce:
    """A nonce and what is known of it; compared by identity.

    Attributes:
        value: What goes into ``X-WP-Nonce``.
        fetched: Whether it came straight from ``start_session`` (else from disk or out of an answer).
        accepted: Whether any answer has shown that the service takes it.
        pending: Requests on the wire that carry it and are undecided.
        refused: Whether the service has refused it.
    """

    __slots__ = ("accepted", "born", "fetched", "pending", "refused", "settled", "value")

    def __init__(self, value: str, *, fetched: bool, born: float) -> None:
        self.value, self.fetched, self.born = value, fetched, born
        self.accepted = self.refused = False
        self.pending = 0
        self.settled = asyncio.Event()


class NonceCache:
    """Hands one nonce to all workers; fetches, rotates and refreshes it once for all.

    Args:
        fetch: Asks the service for a nonce; raises ``ProviderError``.
        store: Where nonces live between runs, or None.
        shared: Where other processes of the run get and give theirs, or None.
        max_age_s: Seconds after which a nonce is fetched anew.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[str]],
        *,
        store: NonceStore | None = None,
        shared: SharedNonce | None = None,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._fetch, self._store, self._shared, self._max_age_s = fetch, store, shared, max_age_s
        self._current: Nonce | None = None
        self._retired: dict[str, None] = {}  # in the order they were given up
        self._task: asyncio.Task[Nonce] | None = None
        self._saving: set[asyncio.Task[Any]] = set()
        self._fetch_at = 0.0
        self._read_store = store is not None
        self._suspects: deque[Nonce] = deque(maxlen=2 * _BARREN_FETCHES)
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> asyncio.AbstractEventLoop:
        """Takes its times from the running loop; finding that out costs a system call, too much for each prompt."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def current(self) -> Nonce | None:
        """The nonce to send now, or None where one has to be waited for (``get``)."""
        nonce = self._current
        if nonce is not None and (self._loop or self.bind()).time() - nonce.born > self._max_age_s:
            self._current = nonce = None
        return nonce

    async def get(self) -> Nonce:
        """The nonce to send; at most one fetch is in flight however many wait.

        A fetch that failed for now is the failure of the one caller who began it; the others wait for the next.

        Raises:
            ProviderError: The caller's own fetch failed, or one that failed for good.
        """
        while (nonce := self.current) is None:
            if own := self._task is None:
                self._task = asyncio.create_task(self._obtain())
                self._task.add_done_callback(self._fetched)
            try:
                return await asyncio.shield(self._task)
            except ProviderError as error:
                if own or not error.may_retry:
                    raise
        return nonce

    def accept(self, nonce: Nonce) -> None:
        """Notes that the service took ``nonce``."""
        if not nonce.accepted:
            nonce.accepted = True
            nonce.settled.set()
            self._suspects.clear()

    def release(self, nonce: Nonce) -> None:
        """Ends one request's use of ``nonce``, whatever came of it."""
        nonce.pending -= 1
        if not nonce.pending:
            nonce.settled.set()

    async def refuse(self, nonce: Nonce) -> None:
        """Notes that the service refused ``nonce``; returns when it is worth asking ``get`` for another.

        The first to come retires it, the others find that done. Whether a freshly fetched nonce is barren, refused
        without ever having been taken, shows when every request that carried it is decided: with a short-lived
        nonce, refusals overtake the slower answers that took it. That is waited for a moment and not for as long as
        the slowest answer may take.

        Raises:
            AuthError: Two freshly fetched nonces in a row were refused.
        """
        if not nonce.refused:
            nonce.refused = True
            self._retire(nonce)
            if nonce.fetched:
                self._suspects.append(nonce)
        if not nonce.fetched or nonce.accepted:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_VERDICT_S):
                await nonce.settled.wait()
        barren = [suspect for suspect in self._suspects if not suspect.pending and not suspect.accepted]
        if len(barren) >= _BARREN_FETCHES and nonce in barren:
            raise AuthError(
                "the service refuses a freshly fetched nonce; its chat may be closed to anonymous callers", status=403
            )

    def adopt(self, sent: Nonce, offered: str | None) -> None:
        """Takes the nonce that an answer offers, if that answer was to a request with the current one.

        A late answer to an older nonce, or one that offers a nonce already given up or none at all, changes nothing.
        """
        if not offered or sent is not self._current or offered == sent.value or offered in self._retired:
            return
        if not is_nonce(offered):
            return
        self._give_up(sent.value)
        self._set(Nonce(offered, fetched=False, born=asyncio.get_running_loop().time()), save=True)

    @property
    def trouble(self) -> str | None:
        """Why nonces are not kept for the next run, in a sentence; None where they are, or were not to be."""
        return None if self._store is None else self._store.trouble

    async def close(self) -> None:
        """Ends a fetch that nobody waits for any more and lets writes to disk finish."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])  # what it raised was for those who waited
        if self._saving:
            await asyncio.gather(*self._saving)

    async def _obtain(self) -> Nonce:
        """A nonce for all: what another process of the run has, what is stored, or a fresh one."""
        shared = self._shared
        if shared is None:
            return await self._stored_or_fetched()
        if (found := await shared.take(self._retired, self._max_age_s)) is not None:
            value, age_s = found
            nonce = Nonce(value, fetched=False, born=asyncio.get_running_loop().time() - age_s)
            return self._set(nonce, save=False, share=False)
        try:
            return await self._stored_or_fetched()
        except BaseException:
            shared.fail()
            raise

    async def _stored_or_fetched(self) -> Nonce:
        loop = asyncio.get_running_loop()
        if self._read_store and self._store is not None:
            self._read_store = False
            stored = await asyncio.to_thread(self._store.read, self._max_age_s)
            if stored is not None and is_nonce(stored.value) and stored.value not in self._retired:
                return self._set(Nonce(stored.value, fetched=False, born=loop.time() - stored.age_s), save=False)
        if (early_s := self._fetch_at - loop.time()) > 0:
            await asyncio.sleep(early_s)
        try:
            value = await self._fetch()
        except ProviderError:
            self._fetch_at = loop.time() + _FETCH_AGAIN_S
            raise
        return self._set(Nonce(value, fetched=True, born=loop.time()), save=True)

    def _fetched(self, task: asyncio.Task[Nonce]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # told to those who waited; nobody may be left

    def _set(self, nonce: Nonce, *, save: bool, share: bool = True) -> Nonce:
        self._current = nonce
        self._retired.pop(nonce.value, None)
        if share and self._shared is not None:
            self._shared.keep(nonce.value, asyncio.get_running_loop().time() - nonce.born)
        if save and self._store is not None:
            self._save(lambda store: store.write(StoredNonce(value=nonce.value, age_s=0.0)))
        return nonce

    def _retire(self, nonce: Nonce) -> None:
        self._give_up(nonce.value)
        if nonce is self._current:
            self._current = None
            if self._store is not None:
                self._save(lambda store: store.forget(nonce.value))

    def _give_up(self, value: str) -> None:
        self._retired[value] = None
        if len(self._retired) > _MOST_RETIRED:
            del self._retired[next(iter(self._retired))]

    def _save(self, act: Callable[[NonceStore], None]) -> None:
        if self._store is not None:
            task = asyncio.create_task(asyncio.to_thread(act, self._store))
            self._saving.add(task)
            task.add_done_callback(self._saving.discard)
