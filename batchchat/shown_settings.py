"""A job's settings as they may stand in a summary: nothing secret in them."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from batchchat.config import JobConfig

__all__ = ["shown_settings", "shown_url"]

_NO_SECRETS = ("user-agent", "accept", "accept-language", "x-title", "http-referer")


def shown_settings(job: JobConfig) -> dict[str, Any]:
    """Every setting; values of headers, and user names and passwords in addresses, as ``***``."""
    shown: dict[str, Any] = msgspec.to_builtins(job)
    shown["rate"] = [str(rate) for rate in job.rate]
    provider = shown["provider"] = dict(shown["provider"])
    if isinstance(headers := provider.get("headers"), dict):
        provider["headers"] = {
            name: value if str(name).lower() in _NO_SECRETS else "***" for name, value in headers.items()
        }
    for section, key in ((provider, "base_url"), (shown, "proxy")):
        if isinstance(section.get(key), str):
            section[key] = shown_url(section[key])
    return shown


def shown_url(url: str) -> str:
    """The address without user name, password and query."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = parts.netloc.rpartition("@")
    except ValueError:
        return "***"
    hidden = parts._replace(netloc=f"***@{host[2]}" if host[1] else host[2], query="***" if parts.query else "")
    return hidden.geturl()
