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
    provider = shown["provider"] = _service(shown["provider"])
    if isinstance(endpoints := provider.get("endpoints"), list):
        provider["endpoints"] = [_service(each) if isinstance(each, dict) else each for each in endpoints]
    if isinstance(shown.get("proxy"), str):
        shown["proxy"] = masked_url(shown["proxy"])
    _hide_secrets(shown["prompt"]["params"])
    return shown


def _service(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a provider, or of one of its endpoints."""
    service = dict(settings)
    if isinstance(headers := service.get("headers"), dict):
        service["headers"] = {
            name: value if str(name).lower() in _NO_SECRETS else "***" for name, value in headers.items()
        }
    if isinstance(service.get("base_url"), str):
        service["base_url"] = masked_url(service["base_url"])
    if service.get("api_key_command"):
        service["api_key_command"] = "***"
    _hide_secrets(service)
    return service


def _hide_secrets(section: dict[str, Any]) -> None:
    section.update({name: "***" for name, value in section.items() if value and names_secret(str(name))})
