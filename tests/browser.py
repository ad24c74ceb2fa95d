"""A real browser without a window, for which hosts have no address but those that a test serves on."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

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
