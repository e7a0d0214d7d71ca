"""Chromium without a window, as a person's browser would open a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DROP = """
const data = new DataTransfer();
for (const [name, content] of arguments[0])
  data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
document.body.dispatchEvent(
  new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
"""


class Browser:
    """A browser that has opened a page.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        """Opens a page by file:// and waits until its engine is ready."""
        self.driver.get(page.resolve().as_uri())
        self.wait("document.getElementById('status').textContent !== 'Loading…'")

    def js(self, expression: str, *arguments: object) -> Any:
        """The value of an expression."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """Waits until an expression is true, and gives back its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"{expression} did not become true: {self.errors()}"
            time.sleep(0.02)
        return value

    def drop(self, files: Iterable[Path]) -> None:
        """Drops files on the page and waits until all are answered."""
        contents = [(f.name, base64.b64encode(f.read_bytes()).decode()) for f in files]
        self.driver.execute_script(DROP, contents)
        self.wait("!working")

    def errors(self) -> list[str]:
        """The errors that the console has shown since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = (m for m in messages if m["method"] == "Network.requestWillBeSent")
        return [message["params"]["request"]["url"] for message in sent]

    def memory(self) -> int:
        """Bytes of memory that all of its processes hold, after a garbage collection."""
        self.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        pages = sum(_resident_pages(self.driver.service.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE")


def _resident_pages(pid: int) -> Iterator[int]:
    """Of a process and its descendants."""
    yield int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _resident_pages(int(child))


@contextmanager
def chromium(flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A running browser; skips the test where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        reason = "no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("SQUEEZENET_REQUIRE_ASSETS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-background-networking"),
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", *flags),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
