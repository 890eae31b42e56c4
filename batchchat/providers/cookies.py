"""Cookies of a site: sent back to it, and known, as they are the visit's secret."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

__all__ = ["KnownCookies"]

# Shorter ones would hide ordinary words in messages.
_FEWEST_CHARS = 6
_MOST_VALUES = 64


class KnownCookies(aiohttp.CookieJar):
    """A cookie jar that remembers what it held, also what was replaced while an older request was on its way.

    Attributes:
        values: The newest different values of cookies that may be secrets.
    """

    def __init__(self) -> None:
        super().__init__(unsafe=True)  # sites may be addressed by number
        self.values: deque[str] = deque(maxlen=_MOST_VALUES)

    def update_cookies(self, cookies: Any, response_url: URL = URL()) -> None:  # noqa: B008 - as the jar has it
        """As the jar's own."""
        super().update_cookies(cookies, response_url)
        self._remember()

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """As the jar's own."""
        super().update_cookies_from_headers(headers, response_url)
        self._remember()

    def take(self, headers: CIMultiDictProxy[str], url: str) -> None:
        """Takes the cookies that an answer sets, as a session does by itself."""
        given = headers.getall(hdrs.SET_COOKIE, ())
        if given and hasattr(aiohttp.CookieJar, "update_cookies_from_headers"):
            self.update_cookies_from_headers(given, URL(url))
        elif given:  # before aiohttp 3.13
            cookies: SimpleCookie = SimpleCookie()
            for cookie in given:
                with suppress(CookieError):
                    cookies.load(cookie)
            self.update_cookies(cookies, URL(url))

    def _remember(self) -> None:
        for cookie in self:
            if len(cookie.value) >= _FEWEST_CHARS and cookie.value not in self.values:
                self.values.append(cookie.value)
