"""A job's settings as they may stand in a summary: nothing secret in them."""

from typing import Any

import msgspec

from batchchat.config import JobConfig
from batchchat.providers.address import masked_url
from batchchat.scalars import names_secret

__all__ = ["shown_settings"]

_NO_SECRETS = ("user-agent", "accept", "accept-language", "x-title", "http-referer")


def shown_settings(job: JobConfig) -> dict[str, Any]:
    """Every setting; values of headers, of what is named like a secret, and passwords in addresses, as ``***``."""
    shown: dict[str, Any] = msgspec.to_builtins(job)
    shown["rate"] = [str(rate) for rate in job.rate]
    provider = shown["provider"] = dict(shown["provider"])
    if isinstance(headers := provider.get("headers"), dict):
        provider["headers"] = {
            name: value if str(name).lower() in _NO_SECRETS else "***" for name, value in headers.items()
        }
    for section, key in ((provider, "base_url"), (shown, "proxy")):
        if isinstance(section.get(key), str):
            section[key] = masked_url(section[key])
    for section in (provider, shown["prompt"]["params"]):
        section.update({name: "***" for name, value in section.items() if value and names_secret(str(name))})
    return shown
