"""Cookies of a site: sent back to it, and known, as they are the visit's secret."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import aiohttp
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

    def _remember(self) -> None:
        for cookie in self:
            if len(cookie.value) >= _FEWEST_CHARS and cookie.value not in self.values:
                self.values.append(cookie.value)
