"""A real browser without a window, for which hosts have no address but those that a test serves on."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.servers import REQUIRED


@contextmanager
def chromium(*reachable: str) -> Iterator[Browser]:
    """Chromium; `reachable` are the only hosts that it finds."""
    program = shutil.which("chromium")
    if program is None:
        assert not REQUIRED, "chromium is not installed"
        pytest.skip("needs a browser (Debian: chromium)")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    rules = ", ".join(["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in reachable)])
    with sync_playwright() as playwright:
        arguments = [*sandbox, f"--host-resolver-rules={rules}"]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@dataclass
class Visitor:
    """Opens pages in contexts of their own; keeps what they complain of and which addresses they ask for."""

    browser: Browser
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, url: str, **options: Any) -> Page:
        """The page at an address; `options` are those of a browser's context."""
        context = self.browser.new_context(**options)
        self.contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@contextmanager
def visitor(browser: Browser, allowed: tuple[str, ...]) -> Iterator[Visitor]:
    """A visitor; at the end no page has complained, nor asked for anything but addresses that begin so."""
    visiting = Visitor(browser)
    yield visiting
    for context in visiting.contexts:
        context.close()
    assert visiting.complaints == []
    assert [url for url in visiting.requests if not url.startswith(allowed)] == []
