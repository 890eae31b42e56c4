"""The version and its day, in one place: the package's metadata, the User-Agent and the man pages read them here."""

__all__ = ["RELEASED", "VERSION"]

VERSION = "0.1.0"
RELEASED = "2026-11-27"
