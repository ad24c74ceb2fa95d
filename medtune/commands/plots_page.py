"""The page around DVC's plots with Vega in it: `dvc plots show` and `dvc plots diff` need no network.

Run by `make install`:

    python -m medtune.commands.plots_page

DVC's own page loads Vega from a server each time it is opened. This one is made at install time, since its
script of 900 kB comes from an installed package and need not stand in git. It is named in
`.dvc/config.local`, which git ignores too: a clone where it was never made shows plots as DVC does by itself.
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

from medtune.core.outputs import write_text

DVC_FOLDER = Path(".dvc")
PLOTS_PAGE = DVC_FOLDER / "plots-page.html"
VEGA_LITE = "5.21"
"""Of the major version that DVC's plot templates are written in."""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    {refresh_tag}
    <title>medtune: plots</title>
    <style>
        body { font-family: sans-serif; }
        table { border-spacing: 15px; }
    </style>
    <script>
    (function () {
SCRIPT
    })();
    </script>
</head>
<body>
    {plot_divs}
</body>
</html>
"""
"""What stands in braces is filled in by DVC; its `{scripts}`, the addresses of that server, is left out.

The script is a function so that its names do not clash with those of the plots, such as `spec`.
"""


def main() -> None:
    """Write the page, and name it in this machine's configuration unless another is named there."""
    # vegaEmbed is what the plots call.
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    write_text(PLOTS_PAGE, PAGE.replace("SCRIPT", script))
    with Config(str(DVC_FOLDER)).edit("local") as local:
        # DVC looks for it from its own folder.
        local.setdefault("plots", {}).setdefault("html_template", PLOTS_PAGE.name)


if __name__ == "__main__":
    main()
