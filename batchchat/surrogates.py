"""Half surrogate pairs, which JSON can spell and no encoding can hold."""

__all__ = ["without_surrogates"]


def without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
