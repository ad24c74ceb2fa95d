"""Plots can be looked at where there is no network."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medtune.commands import plots_page
from tests.conftest import ROOT
from tests.project import run
from tests.servers import REQUIRED

PIPELINE = """\
plots:
  - Loss:
      x: step
      y:
        curve.csv: loss
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One curve, and the committed configuration of DVC, as in a fresh clone."""
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "curve.csv").write_text("step,loss\n1,3.0\n2,2.0\n3,1.5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def browser() -> str:
    program = shutil.which("chromium")
    if program is None:
        assert not REQUIRED, "chromium is not installed"
        pytest.skip("needs a browser (Debian: chromium)")
    return program


def shown(repository: Path) -> Path:
    """The page that `dvc plots show` makes."""
    run("dvc", "plots", "show", cwd=repository)
    return repository / "dvc_plots/index.html"


def loaded(page: Path) -> list[str]:
    """Addresses that a browser loads to show a page."""
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attributes if name in ("src", "href"))

    Tags().feed(page.read_text())
    return found


def in_browser(browser: str, page: Path) -> str:
    """A page after its scripts have run, in a browser for which no host has an address."""
    offline = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [browser, *offline, profile, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_page_loads_nothing(repository: Path) -> None:
    plots_page.main()
    assert loaded(shown(repository)) == []


def test_plots_are_drawn_without_a_network(repository: Path, browser: str) -> None:
    drawing = 'class="marks"'
    before = shown(repository)
    assert loaded(before)
    assert drawing not in in_browser(browser, before)
    plots_page.main()
    assert drawing in in_browser(browser, shown(repository))


def test_a_page_of_ones_own_stays(repository: Path) -> None:
    (repository / ".dvc/mine.html").write_text("<p>mine</p>{plot_divs}")
    run("dvc", "config", "--local", "plots.html_template", "mine.html", cwd=repository)
    plots_page.main()
    assert "<p>mine</p>" in shown(repository).read_text()


def test_credentials_beside_it_stay(repository: Path) -> None:
    run("dvc", "remote", "modify", "--local", "storage", "url", "s3://bucket/medtune", cwd=repository)
    run("dvc", "remote", "modify", "--local", "storage", "secret_access_key", "secret", cwd=repository)
    plots_page.main()
    assert "secret_access_key = secret" in (repository / ".dvc/config.local").read_text()
