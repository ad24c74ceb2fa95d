"""The site is whole: no broken link or anchor, nothing of other hosts, every parameter and command in it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, Request

from medtune.commands.cli import _parser
from medtune.commands.sections import schema
from medtune.commands.site import commands_page, parameters_page, subcommands
from medtune.core.yaml_file import read_yaml
from tests.conftest import ROOT
from tests.evaluate.test_report_browser import browser
from tests.project import attempt, run

__all__ = ["browser"]

BUILD = ("mkdocs", "build", "--strict", "--site-dir")
# With --quiet no warning is counted, and --strict finds none.
QUIET = {"NO_MKDOCS_2_WARNING": "1"}
SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted((ROOT / "docs/pictures").glob("*.svg"))
each_picture = pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run(*BUILD, str(folder), cwd=ROOT, env=QUIET)
    return folder


def copied(folder: Path) -> Path:
    for name in ("docs", "medtune/commands"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("mkdocs.yml", "params.yaml", "CONTRIBUTING.md"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("page", "added"),
    [
        ("docs/data.md", "\n[gone](gone.md)\n"),
        ("docs/data.md", "\n[gone](models.md#gone)\n"),
        ("docs/data.md", "\n[gone](#gone)\n"),
        ("docs/data.md", "\n[a module](../medtune/core/errors.py)\n"),
        ("docs/index.md", "\n![gone](pictures/gone.svg)\n"),
        ("CONTRIBUTING.md", "\n[gone](docs/gone.md)\n"),
        ("docs/forgotten.md", "# No page of the navigation\n"),
    ],
)
def test_a_broken_link_or_a_page_that_nothing_leads_to_is_an_error(
    tmp_path: Path, page: str, added: str
) -> None:
    folder = copied(tmp_path)
    with (folder / page).open("a") as file:
        file.write(added)
    built = attempt(*BUILD, "site", cwd=folder, env=QUIET | {"PYTHONPATH": str(ROOT)})
    assert built.returncode != 0
    assert Path(page).name.lower() in (built.stdout + built.stderr).lower()


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?([^\"' >]+)", text)
        assert fetched
        assert not [address for address in fetched if re.match(r"(?:https?:)?//", address)]
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8"))


def keys(described: dict[str, Any], path: str, definitions: dict[str, Any]) -> list[str]:
    """Dotted keys of a schema, whatever is below a name of one's own apart."""
    found = []
    for name, field in described["properties"].items():
        found.append(f"{path}.{name}")
        parts = [field, *field.get("anyOf", ())]
        for part in parts:
            if "$ref" in part:
                below = definitions[part["$ref"].rpartition("/")[2]]
                found += keys(below, f"{path}.{name}", definitions) if "properties" in below else []
    return found


def test_every_parameter_is_in_the_reference_with_its_words_and_shipped_value() -> None:
    page = parameters_page(read_yaml(ROOT / "params.yaml"))
    whole = schema()
    wanted = [
        key
        for section, described in whole["properties"].items()
        for key in keys(described, section, whole["$defs"])
    ]
    assert len(wanted) > 60
    for key in wanted:
        assert len(re.findall(rf"^\| `{re.escape(key)}` \|", page, re.M)) == 1, key
    assert (
        "| `finetune.lora.r` | `16` | a whole number, 1 or more | Rank of the update: higher learns more and "
        "costs more. |"
    ) in page
    assert "| `model.revision` | `null` | 40 hexadecimal digits" in page
    assert "`data.kinds.NAME.train`" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(line.count(" | ") == 3 and not line.endswith("|  |") for line in rows)


def test_every_command_and_option_is_in_the_reference() -> None:
    page = commands_page()
    help_text = _parser().format_help()
    for name, command in subcommands().items():
        part = page.partition(f"\n## medtune {name}\n")[2].partition("\n## ")[0]
        assert part.strip().startswith(f"```text\nusage: medtune {name} ")
        options = [option for action in command._actions for option in action.option_strings]
        assert all(option in part for option in options)
        assert name in help_text


def test_links_of_the_pages_on_top_lead_to_files_and_headings() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = ROOT / name if name else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                slugs = [re.sub(r"[^\w\- ]", "", one).strip().lower().replace(" ", "-") for one in headings]
                assert anchor in slugs, f"{page}: {link}"


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, as WCAG has it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@each_picture
def test_a_picture_says_in_words_what_it_shows_and_fetches_nothing(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc")
    assert not re.search(r"<script|<image|href=|url\((?!#)", text)
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert re.search(rf"!\[[^\]]{{20,}}\]\(pictures/{picture.name}\)", pages)


@each_picture
def test_a_picture_can_be_read_in_light_and_in_dark(picture: Path) -> None:
    style = picture.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for scheme in (light, dark):
        fills = dict(re.findall(r"(?:\.|\b)(panel|box|made|old|text) \{ fill: (#[0-9a-f]{6})", scheme))
        assert fills.keys() == {"panel", "box", "made", "old", "text"}
        for name in ("panel", "box", "made", "old"):
            assert contrast(fills["text"], fills[name]) >= 7


@each_picture
def test_no_text_of_a_picture_leaves_it_or_its_box(picture: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(picture.as_uri())
    outside = page.evaluate(
        """() => {
          const [, , width, height] = document.documentElement.getAttribute("viewBox").split(" ").map(Number);
          const boxes = [...document.querySelectorAll("rect:not(.panel)")].map((one) => one.getBBox());
          const within = (text, box) => text.x >= box.x && text.x + text.width <= box.x + box.width
            && text.y >= box.y && text.y + text.height <= box.y + box.height;
          const middle = (text, box) => within({x: text.x + text.width / 2, y: text.y + text.height / 2,
            width: 0, height: 0}, box);
          return [...document.querySelectorAll("text")].filter((one) => {
            const text = one.getBBox();
            const home = boxes.find((box) => middle(text, box)) || {x: 0, y: 0, width: width - 8, height};
            return !within(text, home);
          }).map((one) => one.textContent);
        }"""
    )
    page.close()
    assert outside == []


@pytest.mark.parametrize("name", ["index", "parameters", "commands", "contributing"])
def test_a_page_is_read_from_a_folder_and_asks_nobody(site: Path, browser: Browser, name: str) -> None:
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 375, "height": 800})

    def on_request(request: Request) -> None:
        asked.append(request.url)

    page.on("request", on_request)
    page.goto((site / f"{name}.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()
    assert asked and all(address.startswith(site.as_uri()) for address in asked)


def test_make_docs_builds_the_site_anew(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^docs: .*\n\t(.*)$", makefile, re.M)
    folder = copied(tmp_path)
    subprocess.run(command, shell=True, cwd=folder, check=True)
    assert (folder / "site/parameters.html").is_file()
