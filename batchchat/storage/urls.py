"""What a URL of an object looks like, without a request."""

import os
import re
from typing import NamedTuple
from urllib.parse import unquote

from batchchat.errors import ConfigError

__all__ = ["Place", "is_url", "join", "masked", "parse", "plain_path", "same_object"]

# A drive of Windows has one letter.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_USER_INFO = re.compile(r"(://)[^/?#\s]*@")
_SECRET = re.compile(r"([?&][^=&]*(?:key|token|secret|sig|credential|password)[^=&]*=)[^&#]*", re.IGNORECASE)
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "memory": "memory"}


class Place(NamedTuple):
    """Where an object is: the kind of store (``s3``, ``gs``, ``memory``), its bucket and its key."""

    kind: str
    bucket: str
    key: str


def is_url(path: str) -> bool:
    """Whether a path is the address of an object in a store; ``file://`` is one of a plain file, and is none."""
    found = _URL.match(path)
    return found is not None and found[1].lower() != "file"


def plain_path(path: str) -> str:
    """``file://`` addresses as the paths that they mean; everything else as it is.

    Raises:
        ConfigError: The address names another host.
    """
    if path[:7].lower() != "file://":
        return path
    host, slash, rest = path[7:].partition("/")
    if host not in ("", "localhost") or not slash:
        raise ConfigError(f"{path} is no file of this machine, expected file:///PATH")
    local = unquote("/" + rest)
    return local[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", local) else local


def masked(url: str) -> str:
    """The address without user info and without values of keys in its query."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub(r"\1***@", url))


def parse(url: str) -> Place:
    """Where an address leads.

    Raises:
        ConfigError: It is none of an object, or holds a secret, which is not shown.
    """
    shown = masked(url)
    found = _URL.match(url)
    kind = _SCHEMES.get(found[1].lower()) if found else None
    if found is None or kind is None:
        raise ConfigError(f"{shown}: expected an address that begins with s3://, gs:// or file://")
    bucket, _, key = found[2].partition("/")
    if shown != url or "@" in bucket:
        raise ConfigError(
            f"{shown}: found a secret in the address, expected none; keys are taken from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or from the files of the store's own tools"
        )
    if not bucket or not key or key.endswith("/"):
        raise ConfigError(f"{shown}: expected the name of an object, {found[1]}://BUCKET/NAME")
    return Place(kind, bucket, key)


def same_object(one: str, other: str) -> bool:
    """Whether two paths or URLs name the same, as ``s3://`` and ``s3a://`` do.

    Raises:
        ConfigError: As ``parse``.
    """
    return one == other or (is_url(one) and is_url(other) and parse(one) == parse(other))


def join(place: str, *names: str) -> str:
    """A URL or path with more parts."""
    return "/".join((place.rstrip("/"), *names)) if is_url(place) else os.path.join(place, *names)
