"""What the HTTP library may say on standard error: faults of the server's own, not those of whoever sends to it."""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["own_faults_logger"]


class _OwnFaults(logging.Filter):
    """Drops what malformed requests and lost connections raise: the sender has its answer, or is gone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError | OSError)


def own_faults_logger() -> logging.Logger:
    """A logger for aiohttp's server."""
    logger = logging.getLogger("batchchat.devserver")
    if not logger.filters:
        logger.addFilter(_OwnFaults())
    return logger
