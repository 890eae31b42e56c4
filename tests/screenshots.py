"""Makes the pictures of the documents from the real pages: ``.venv/bin/python -m tests.screenshots``; needs Chromium.

A run of the sample questions against the development server, with some faults, seen while it goes on and afterwards.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BATCHCHAT = [sys.executable, "-m", "batchchat"]
TEXT = (
    "**In short:** it depends on *pressure*.\n\n1. Cool it slowly.\n2. Measure twice.\n\n"
    "| metal | melts at |\n|---|--:|\n| tin | 232 °C |\n| lead | 327 °C |\n\n```python\nprint(232 < 327)\n```\n"
)


@contextmanager
def started(*arguments: str):
    """A command that runs until it is interrupted, and the first line that it prints."""
    process = subprocess.Popen([*BATCHCHAT, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def run(folder: Path, base_url: str, name: str, *more: str) -> subprocess.Popen[bytes]:
    """A run of some hundred prompts."""
    prompts = ["--prompt", "{{ question }}", "--n", "40"]
    service = ["--provider", "openai", "--model", "gpt-4", "--base-url", base_url]
    questions = ROOT / "sample_inputs" / "questions.jsonl"
    return subprocess.Popen([*BATCHCHAT, "run", questions, "-o", folder / name, "-q", *prompts, *service, *more])


def shoot(page: Page, name: str) -> None:
    """Writes a picture of few colours, as small as that makes it."""
    page.wait_for_timeout(1500)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=str(path))
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--output", str(path), "64", str(path)], check=True)
    print(path.relative_to(ROOT), f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    faults = ["--set=latency_ms=350", "--set=latency_jitter=0.7", "--set=error_500=0.12", "--set=error_429=0.05"]
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )

        def page_of(address: str, scheme: str = "light", width: int = 1280, height: int = 1180) -> Page:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(address)
            page.wait_for_selector("#grid .space .row:not(.waiting)")
            return page

        (folder / "answers.jsonl").touch()
        with started("serve", "--port", "0", *faults, f"--set=replies={json.dumps([TEXT])}") as ready, started("view", str(folder / "answers.jsonl")) as address:  # fmt: skip
            going = run(folder, json.loads(ready)["base_url"], "answers.jsonl", "--rate", "25/s", "--retries", "1")
            page = page_of(address)
            page.wait_for_timeout(9000)
            shoot(page, "view-running")
            going.wait(90)
            page.click("#grid .space .row:nth-child(3)")
            page.wait_for_selector(".markdown table")
            page.evaluate("document.querySelector('#plots').open = false")
            page.set_viewport_size({"width": 1280, "height": 800})
            shoot(page, "view-detail")
        with started(
            "serve", "--port", "0", f"--set=replies={json.dumps([TEXT.replace('twice', 'three times')])}"
        ) as ready:
            run(folder, json.loads(ready)["base_url"], "others.jsonl", "--limit", "300").wait(90)
        with started("view", str(folder / "answers.jsonl"), str(folder / "others.jsonl")) as address:
            page = page_of(address, "dark", height=800)
            page.click("text=Compare")
            page.click("[data-verdict=differs]")
            page.wait_for_timeout(1000)
            page.click("#grid .space .row:nth-child(2)")
            page.wait_for_selector(".side ins")
            shoot(page, "view-compare")
        browser.close()


if __name__ == "__main__":
    main()
