"""The scripts of others that the page carries: Vega for charts, DataTables for the table of examples.

Both come from installed packages, so the page needs no network, neither when it is made nor when it is read.
"""

import re
from functools import cache
from importlib import metadata
from pathlib import Path

import vl_convert

from medtune.core.errors import MedtuneError

VEGA_LITE = "6.4"
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""A name, of the major version above; nothing is loaded from there."""
_EXPORT = re.compile(r"export\s*\{[^{}]*?([\w$]+)\s+as\s+default\b[^{}]*\}\s*;?")


@cache
def vega() -> str:
    """A script that leaves `window.vegaEmbed`. Two seconds to make."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return inline("(function () {\n" + script + "\n})();")


@cache
def data_tables() -> str:
    """A script that leaves `window.DataTable`.

    itables ships a module, which a page can import from an address alone: its export becomes an assignment.
    """
    path = Path(str(metadata.distribution("itables").locate_file("itables/html/dt_bundle.js")))
    script, found = _EXPORT.subn(r"window.DataTable = \1;", path.read_text(encoding="utf-8"))
    if found != 1:
        raise MedtuneError(f"{path}: exports no DataTable that medtune could find; run `make install`")
    return inline("(function () {\n" + script + "\n})();")


def inline(script: str) -> str:
    """A script that can stand in a page: these texts, of literals, would end it or hide its end.

    A browser reads line ends as line feeds, and takes the hash of what it read.
    """
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(?=!--|/script)", r"\\x3C", script, flags=re.IGNORECASE)
