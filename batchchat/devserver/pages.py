"""Answers that are no chat protocol's: a gateway's pages, a wall, a redirect, a site under maintenance."""

from batchchat.devserver.wire import SERVER, Answer

__all__ = ["gateway_page", "html_page", "json_answer", "redirect_answer"]

_PHRASES = {
    404: "404 Not Found",
    429: "429 Too Many Requests",
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
}
_WALL = (
    "<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head>\n"
    "<body><h1>Checking your browser</h1><p>Enable JavaScript and cookies to continue.</p></body></html>\n"
)


def gateway_page(status: int, retry_after: str | None = None) -> Answer:
    """The page of a web server in front of the service."""
    title = _PHRASES[status]
    body = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>{SERVER}</center>\r\n</body>\r\n</html>\r\n"
    )
    headers = [("Content-Type", "text/html")]
    if retry_after is not None:
        headers.append(("Retry-After", retry_after))
    return Answer(status=status, headers=tuple(headers), pieces=(body.encode(),), chunked=False)


def html_page(status: int) -> Answer:
    """A challenge page in place of an answer."""
    return Answer(
        status=status,
        headers=(("Content-Type", "text/html; charset=UTF-8"), ("Cache-Control", "no-store")),
        pieces=(_WALL.encode(),),
        chunked=False,
    )


def redirect_answer(status: int, location: str) -> Answer:
    """A redirect without a body."""
    return Answer(status=status, headers=(("Location", location), ("Content-Type", "text/html")), chunked=False)


def json_answer(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """A JSON body with its length."""
    return Answer(
        status=status, headers=(("Content-Type", "application/json"), *headers), pieces=(body,), chunked=False
    )
