"""What is taken as the address of a service."""

import pytest

from batchchat.errors import ConfigError
from batchchat.providers.address import checked_base_url


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://h", "http://h"),
        (" https://h:8443/v1/ ", "https://h:8443/v1"),
        ("HTTP://H/v1", "http://H/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("https://bücher.example/wp-json", "https://bücher.example"),
        ("http://u:p%40w@h/v1?k=v#f", "http://u:p%40w@h/v1"),
    ],
)
def test_address_is_taken_without_what_is_not_of_it(given: str, taken: str) -> None:
    assert checked_base_url(given, "openai") == taken


@pytest.mark.parametrize(
    "given",
    [
        "http://127.0.0.1:/v1",
        "http://[::1]:",
        "http://h:0",
        "http://h:99999",
        "http://h:8080:90",
        "http://h:port",
        "http://exa mple.example",
        "http://h\tx",
        "http://h\nx/v1",
        "http://h/v 1",
        "http://a\\b",
        "http://%zz",
        "http://<h>",
        "http://h..x",
        "http://[::1",
        "http:///v1",
        "http://u:pw@:80",
        "ftp://h",
        "h:8080",
        "",
    ],
)
def test_what_is_no_address_is_told_in_a_sentence_without_its_password(given: str) -> None:
    with pytest.raises(ConfigError) as told:
        checked_base_url(given, "openai")
    assert "base_url" in str(told.value)
    assert "pw" not in str(told.value)
    assert "\n" not in str(told.value)
