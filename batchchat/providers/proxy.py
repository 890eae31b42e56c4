"""Which proxy a run goes through: the option, else the environment's, minus ``NO_PROXY``."""

from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public, but not in the stubs

from batchchat.errors import ConfigError

__all__ = ["choose_proxy"]


def choose_proxy(url: str, option: str | None, environ: Mapping[str, str]) -> str | None:
    """The proxy for a service's URL, or None for a direct connection.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` (by the URL's scheme), then ``ALL_PROXY``, in either case; the option wins
    over all of them and over ``NO_PROXY``.

    Raises:
        ConfigError: The proxy's URL is of a scheme that is not spoken here, or has no host.
    """
    if option:
        return _checked(option, "--proxy")
    parts = urlsplit(url)
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if excluded and parts.hostname and proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": excluded}):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for key in (name, name.upper()):
            if value := environ.get(key, "").strip():
                return _checked(value, key)
    return None


def _checked(proxy: str, origin: str) -> str:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:  # whose text may hold a piece of a password
        raise ConfigError(f"{origin}: the proxy's address is none; expected http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        scheme = parts.scheme or "no scheme"
        raise ConfigError(f"{origin}: a proxy of scheme {scheme!r} is not supported; expected http://host:port")
    return parts.geturl()
