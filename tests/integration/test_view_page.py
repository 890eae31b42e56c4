"""The page of ``batchchat view`` in a real browser: what a person sees, types and clicks."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchchat.control.client import ask_or_fail
from batchchat.control.messages import Request
from tests.runs import BATCHCHAT, finish, serving, start_command, start_run, wait_until, write_prompts

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
MANY = int(os.environ.get("BATCHCHAT_VIEW_ROWS", "60000"))
ROW = "#grid .space .row:not(.waiting):not([hidden])"
HOSTILE = (
    "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\n\n"
    "[click](javascript:alert(1)) [out](https://elsewhere.example/a) ![seen](https://elsewhere.example/p.png)\n\n"
    "| a | b |\n|--:|:-:|\n| 1 | 2 |\n\n\u202egnp.exe \x1b[31m `code` **strong**"
)
# What Chromium says where the server has ended, as it does in some tests.
ENDED = ("net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_CONNECTION_RESET")


def result(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"q-{number}", "response": f"answer {number}", "error": None, "attempts": 1 + number % 3, "latency_s": number % 97 / 10,
        "finished_at": "2026-11-25T10:03:11.120Z", "index": number, "input": {"question": f"question {number}", "topic": "ab"[number % 2]}, **more,
    }  # fmt: skip


@contextmanager
def viewing(*arguments: str | Path) -> Iterator[str]:
    """The address of a page."""
    process = start_command([*BATCHCHAT, "view", *map(str, arguments)])
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
        assert (code, err) == (0, "")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("BATCHCHAT_NEEDS_BROWSER") else pytest.skip)("no Chromium on this machine")
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens addresses; at the end, nothing may have gone wrong in the page, nor any request elsewhere."""
    contexts, troubles = [], []

    def trouble(text: str) -> None:
        if not text.endswith(ENDED):
            troubles.append(text)

    def opened(address: str, **options: Any):
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1300, "height": 900}), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: trouble(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith(address.partition("#")[0]) else troubles.append(request.url),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    rows = [result(number) for number in range(300)]
    rows[3] |= {"response": HOSTILE, "id": "<b>bold</b>", "attempts": 2}
    rows[3]["failed_attempts"] = [
        {"attempt": 1, "after_s": 0.4, "type": "server", "status": 502, "message": "<u>no</u>"}
    ]
    rows[4] |= {"response": "مرحبا بالعالم"}
    rows[5] |= {"response": "👩‍👩‍👧 " + "W" * 3000}
    failed = result(
        300,
        response=None,
        error={"type": "rate_limit", "message": "<i>slow</i> down", "status": 429, "partial": "begun"},
    )
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "a.errors.jsonl").write_text(json.dumps(failed) + "\n")
    other = [row | ({"response": f"quite another {row['id']}"} if row["index"] % 50 == 7 else {}) for row in rows[:290]]
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    return folder


@pytest.fixture(scope="module")
def address(files: Path) -> Iterator[str]:
    with viewing(files / "a.jsonl", files / "b.jsonl") as address:
        yield address


def wait_for_rows(page: Any, count: int) -> None:
    """Waits until the table tells of so many rows."""
    wait_until(lambda: page.get_attribute("#grid", "aria-rowcount") == str(count + 1))


def first_ids(page: Any, count: int) -> list[str]:
    """Ids of the first rows, from top to bottom."""
    page.wait_for_selector(ROW)
    return page.evaluate(
        """([row, count]) => [...document.querySelectorAll(row)].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
           .slice(0, count).map((each) => each.querySelector('.id').textContent)""",
        [ROW, count],
    )


def test_a_run_is_seen_as_it_goes_on(open_page, tmp_path: Path) -> None:
    """Tiles, plots and rows follow a real run to its end without a reload."""
    with serving(tmp_path, error_500=0.1) as server:
        out = tmp_path / "out.jsonl"
        out.write_text("")
        with viewing(out) as address:
            page = open_page(address)
            page.wait_for_selector("text=no run is going on")
            assert page.locator(".nothing").text_content() == "There are no results in this file."
            run = start_run(
                server, write_prompts(tmp_path / "in.jsonl", 120), out, "--rate", "2/s", "--retries", "0", "-q"
            )
            page.wait_for_selector("#state.running")
            page.wait_for_selector(".tile:has-text('limit 2/s')")
            page.wait_for_selector("figure[data-key=throughput] svg:has-text('2/s')")
            page.wait_for_selector(ROW)
            ask_or_fail(str(out), Request(command="set-rate", rates=("500/s",)))
            page.wait_for_selector("#state:has-text('ended')")
            code, _, _ = finish(run)
            done, failed = (path.read_bytes().count(b"\n") for path in (out, tmp_path / "out.errors.jsonl"))
            assert (code, done + failed) == (1, 120)
            wait_for_rows(page, 120)
            wait_until(lambda: page.locator(".tile .value").first.text_content() == str(done))
            assert page.locator(".tile.bad .value").text_content() == str(failed)
            page.click("figure[data-key=attempts] summary")
            page.wait_for_selector("figure[data-key=attempts] td:has-text('120')")
            assert "exit code 1" in page.locator("#state").text_content()


def test_filters_narrow_the_table_and_stand_in_the_address(open_page, address: str) -> None:
    page = open_page(address)
    wait_for_rows(page, 301)
    page.fill("input[name=text]", "ANSWER 12")
    wait_for_rows(page, 11)
    assert first_ids(page, 2) == ["q-12", "q-120"]
    page.select_option("select[name=field]", "topic")
    page.fill("input[name=value]", "b")
    wait_for_rows(page, 5)
    assert "text=ANSWER+12" in page.url
    again = open_page(page.url)
    wait_for_rows(again, 5)
    assert again.input_value("input[name=value]") == "b"
    again.click("text=Clear")
    wait_for_rows(again, 301)
    again.select_option("select[name=kind]", "rate_limit")
    wait_for_rows(again, 1)
    again.fill("input[name=min_latency_s]", "9999")
    again.wait_for_selector(".nothing:has-text('No row matches')")
    with again.expect_download() as download:
        again.click(".downloads a >> nth=0")
    assert Path(download.value.path()).read_bytes() == b""


def test_columns_sort_both_ways(open_page, address: str) -> None:
    page = open_page(address)
    wait_for_rows(page, 301)
    page.click("button.sort:has-text('Latency')")
    page.wait_for_selector("[aria-sort=descending]:has-text('Latency')")
    wait_until(lambda: first_ids(page, 2) == ["q-96", "q-193"])
    page.click("button.sort:has-text('Latency')")
    page.wait_for_selector("[aria-sort=ascending]:has-text('Latency')")
    wait_until(lambda: first_ids(page, 2) == ["q-0", "q-97"])


def test_hostile_answers_are_text(open_page, address: str) -> None:
    page = open_page(address)
    wait_for_rows(page, 301)
    page.click(f"{ROW}:nth-child(4)")
    page.wait_for_selector(".markdown")
    shown = page.locator(".markdown")
    assert "<script>document.title='taken'</script>" in shown.text_content()
    assert "⟨U+202E⟩gnp.exe ⟨U+001B⟩[31m" in shown.text_content()
    assert shown.locator("img, script").count() == 0
    assert [(link.get_attribute("href"), link.get_attribute("rel")) for link in shown.locator("a").all()] == [
        ("https://elsewhere.example/a", "noopener noreferrer nofollow")
    ]
    assert "https://elsewhere.example/a" in shown.text_content()
    assert page.locator("#detail h2").text_content() == "<b>bold</b>"
    page.click("role=tab[name=Text]")
    assert "**strong**" in page.locator("#tabpanel pre").text_content()
    page.click("role=tab[name=JSON]")
    assert page.locator(".attempt-list tr").all_text_contents() == [
        "1400 msserverHTTP 502: <u>no</u>",
        "2300 msanswered",
    ]
    assert '"attempts": 2' in page.locator("#tabpanel pre").text_content()
    assert page.title() == "a.jsonl – batchchat"


def test_the_keyboard_is_enough(open_page, address: str) -> None:
    """/ searches, arrows and j, k move, Enter opens, Escape closes and gives the focus back."""
    page = open_page(address)
    wait_for_rows(page, 301)
    page.keyboard.press("/")
    page.keyboard.type("answer 29")
    wait_for_rows(page, 11)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h2:has-text('q-290')")
    assert page.get_attribute("#grid", "aria-activedescendant") is not None
    page.focus("#detail")
    page.keyboard.press("j")
    page.wait_for_selector("#detail h2:has-text('q-291')")
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h2:has-text('q-299')")


def test_two_files_side_by_side(open_page, address: str) -> None:
    page = open_page(address)
    wait_for_rows(page, 301)
    page.click("text=Compare")
    page.click("[data-verdict=differs] >> text=differs 6")
    wait_for_rows(page, 6)
    page.click(f"{ROW}:first-child")
    page.wait_for_selector(".side ins")
    assert page.locator(".side del").first.text_content() == "answer"
    assert page.locator(".side ins").first.text_content() == "quite"
    page.fill(".verdicts input", "QUITE another q-57")
    wait_for_rows(page, 1)
    page.click("text=Right: b.jsonl")
    wait_for_rows(page, 290)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_it_all_on_its_width(open_page, address: str, scheme: str) -> None:
    page = open_page(address, viewport={"width": 375, "height": 760}, color_scheme=scheme)
    wait_for_rows(page, 301)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.click(f"{ROW}:nth-child(6)")
    page.wait_for_selector(".markdown:has-text('WWW')")
    assert page.evaluate(
        "[...document.querySelectorAll('#detail, #detail .body')].every((each) => each.scrollWidth <= 375)"
    )
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, back.removeprefix("rgb(").removesuffix(")").split(", "))) > 3 * 128
    assert light == (scheme == "light")


def test_the_page_tells_when_its_server_has_ended(open_page, files: Path) -> None:
    with viewing(files / "a.jsonl") as address:
        page = open_page(address)
        wait_for_rows(page, 301)
    page.wait_for_selector("#state.broken:has-text('has ended')")


def test_many_rows_are_scrolled_to_their_end(open_page, tmp_path: Path) -> None:
    """BATCHCHAT_VIEW_ROWS=1000000 for more of them; only what is seen exists in the page."""
    path = tmp_path / "many.jsonl"
    with path.open("w") as stream:
        stream.writelines(
            f'{{"id":"q-{n}","response":"answer {n}","latency_s":{n % 89},"index":{n},"attempts":1}}\n'
            for n in range(MANY)
        )
    with viewing(path) as address:
        page = open_page(address)
        page.set_default_timeout(60_000)
        wait_for_rows(page, MANY)
        page.focus("#grid")
        page.keyboard.press("End")
        page.wait_for_selector(f"{ROW}:has-text('answer {MANY - 1}')")
        assert page.evaluate("document.querySelectorAll('#grid .row').length") < 80
        page.evaluate("grid.scrollTop = (grid.scrollHeight - grid.clientHeight) / 2")
        middle = "([row, many]) => [...document.querySelectorAll(row)].some((each) => Math.abs(each.ariaRowIndex - many / 2) < 50)"
        wait_until(lambda: page.evaluate(middle, [ROW, MANY]))
        page.fill("input[name=text]", f"answer {MANY - 7}")
        wait_for_rows(page, 1)
        assert first_ids(page, 1) == [f"q-{MANY - 7}"]
