"""Whether a run has limits of its own or shares them with every other run on this machine."""

import os
import sys
from collections.abc import Callable, Iterator

from batchchat.config import JobConfig
from batchchat.errors import ConfigError
from batchchat.limits import Limiter
from batchchat.observer import RunObserver
from batchchat.providers.base import Provider

__all__ = ["make_limiter"]


def make_limiter(
    job: JobConfig, observer: RunObserver, provider: Callable[[], Provider], failed: Callable[[str], None]
) -> Limiter:
    """What lets the run's requests out; to be entered before the first.

    Args:
        provider: Gives the run's provider, which knows service and key.
        failed: See ``HostLimiter``.

    Raises:
        ConfigError: Limits cannot be shared here.
    """
    if job.rate_scope == "run":
        return Limiter(job.rate, burst=job.burst, tokens_per_minute=job.tokens_per_minute)
    if sys.platform == "win32":
        raise ConfigError("rate_scope: host is not there on Windows; use --rate-scope run")
    from batchchat.hostlimits import HostLimiter, limits_folder, service_digest  # not needed by most runs

    try:
        folder = limits_folder()
    except RuntimeError as error:  # a user without a home, as a service's may be
        raise ConfigError(
            "rate_scope: host needs a folder, and there is no home folder; set XDG_STATE_HOME, or use --rate-scope run"
        ) from error
    return HostLimiter(
        job.rate,
        burst=job.burst,
        tokens_per_minute=job.tokens_per_minute,
        folder=folder,
        service=lambda: service_digest(provider().kind, _services(job, provider())),
        failed=failed,
        notice=lambda sentence: observer.notice(sentence, 0),
    )


def _services(job: JobConfig, provider: Provider) -> Iterator[tuple[str, str | None]]:
    """Address and key of every service that the provider asks; of a plug-in that tells none, what its settings name."""
    if (told := getattr(provider, "services", None)) is not None:
        yield from told()
        return
    name = job.provider.get("api_key_env")
    yield str(job.provider.get("base_url") or ""), os.environ.get(name) if isinstance(name, str) else None
