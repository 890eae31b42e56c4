"""Whose certificates a run trusts: the system's authorities, and those of a file of the user's."""

import os
import re
import ssl
import stat

from batchchat.errors import ConfigError

__all__ = ["load_trust"]

_MOST_BYTES = 16 << 20
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


def load_trust(ca_file: str | None) -> ssl.SSLContext | None:
    """How TLS connections are verified; None for the library's own way, which trusts the system's authorities.

    Nothing here makes verification weaker: a file only adds authorities, and TLS 1.2 is the least.

    Args:
        ca_file: Certificates of authorities in PEM, one or more; text around them is passed over.

    Raises:
        ConfigError: The file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return None
    blocks = _CERTIFICATE.findall(_read(ca_file))
    if not blocks:
        raise _wrong(ca_file, "expected certificates in PEM (-----BEGIN CERTIFICATE-----), found none")
    context = ssl.create_default_context()
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    for number, block in enumerate(blocks, 1):
        try:
            context.load_verify_locations(cadata=block.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise _wrong(ca_file, f"certificate {number} is damaged, expected certificates in PEM") from None
    return context


def _read(path: str) -> bytes:
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _wrong(path, "expected a file with certificates, found none that can be read")
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or "it is no path"
        raise _wrong(path, f"the file cannot be read: {reason}") from None
    if len(data) > _MOST_BYTES:
        raise _wrong(path, f"larger than {_MOST_BYTES >> 20} MiB, expected certificates")
    return data


def _wrong(path: str, message: str) -> ConfigError:
    return ConfigError(message, path=path, key="ca_file")
