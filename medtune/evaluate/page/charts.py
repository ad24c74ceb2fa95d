"""Charts as Vega-Lite specifications.

Colours are CSS variables, so that light and dark need no other chart. Names of fields are fixed: kinds and
answers, which may be called anything, are values alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from medtune.evaluate.page.bundles import SCHEMA
from medtune.evaluate.page.parts import Series

Values = Sequence[Mapping[str, Any]]

CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}
AS_WIDE_AS_THE_PAGE = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
LABELS = {"labelColor": "var(--text)", "labelPadding": 8, "ticks": False, "domain": False}
LINE, GAP = 14, 22
"""Pixels of an interval, and between those of two rows."""
CELL = 26
"""Pixels of a cell of a confusion matrix."""


def intervals(values: Values, rows: Sequence[str], legend: Sequence[Series], measure: str, text: str) -> Any:
    """A point with its interval a row and model: values of `row`, `model`, `value`, `low`, `high`, `n`."""
    share = measure == "accuracy"
    axis = {"format": ".0%" if share else ".1f", "tickCount": 5, "title": None, "grid": True}
    number = ".1%" if share else ".2f"
    ends: Any = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}
    tooltip = [
        {"field": "row", "title": "questions"},
        {"field": "model"},
        {"field": "value", "format": number},
        {"field": "low", "format": number, "title": "from"},
        {"field": "high", "format": number, "title": "to"},
        {"field": "n"},
    ]
    top = max([0.05, *(value["high"] for value in values)])
    scale = {"domain": [0, min(1, top * 1.05)], "nice": True}
    middle = {"field": "value", "type": "quantitative", "axis": axis, "scale": scale}
    return _spec(text, values) | {
        **AS_WIDE_AS_THE_PAGE,
        "height": len(rows) * (len(legend) * LINE + GAP),
        "encoding": {
            "y": {
                "field": "row",
                "type": "nominal",
                "sort": list(rows),
                "title": None,
                "axis": LABELS | {"labelLimit": 130},
                "scale": {"paddingInner": GAP / (len(legend) * LINE + GAP)},
            },
            "yOffset": {"field": "model", "sort": [one.name for one in legend]},
            "color": _color(legend),
            "tooltip": tooltip,
        },
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.55}, "encoding": ends},
            {
                "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
                "encoding": {"x": middle, "shape": _shape(legend)},
            },
        ],
    }


def losses(values: Values, legend: Sequence[Series], text: str) -> Any:
    """Lines over training steps: values of `step`, `loss`, `examples`."""
    return _spec(text, values) | {
        **AS_WIDE_AS_THE_PAGE,
        "height": 240,
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 22, "filled": True}},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "axis": {"grid": False}, "title": "step"},
            "y": {"field": "loss", "type": "quantitative", "title": "loss (nats a token)"},
            "color": _color(legend, "examples"),
            "tooltip": [
                {"field": "examples"},
                {"field": "step"},
                {"field": "loss", "format": ".3f"},
            ],
        },
    }


def confusion(values: Values, rows: Sequence[str], columns: Sequence[str], text: str) -> Any:
    """A cell for each pair that occurs: values of `right`, `given`, `count` and `share` of its row."""
    labels = LABELS | {"labelLimit": 220}
    return _spec(text, values) | {
        "width": {"step": CELL},
        "height": {"step": CELL},
        "encoding": {
            "y": {
                "field": "right",
                "type": "nominal",
                "scale": {"domain": list(rows)},
                "axis": labels | {"title": "right"},
            },
            "x": {
                "field": "given",
                "type": "nominal",
                "scale": {"domain": list(columns)},
                "axis": labels | {"orient": "top", "labelAngle": -50, "title": "given"},
            },
            "tooltip": [
                {"field": "right"},
                {"field": "given"},
                {"field": "count"},
                {"field": "share", "format": ".1%", "title": "of the row"},
            ],
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 3, "fill": "var(--tuned)"},
                "encoding": {
                    "fillOpacity": {
                        "field": "share",
                        "type": "quantitative",
                        "scale": {"domain": [0, 1], "range": [0.1, 1]},
                        "legend": None,
                    }
                },
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {
                    "text": {"field": "count"},
                    "color": {
                        "condition": {"test": "datum.share > 0.6", "value": "var(--surface)"},
                        "value": "var(--text)",
                    },
                },
            },
        ],
    }


def reliability(values: Values, legend: Sequence[Series], text: str) -> Any:
    """Share of right picks over their probability in bins: values of `probability`, `right`, `n`, `model`."""
    unit = {"domain": [0, 1]}
    axis = {"format": ".0%", "tickCount": 5}
    x = {"field": "probability", "type": "quantitative", "scale": unit, "axis": axis}
    y = {"field": "right", "type": "quantitative", "scale": unit, "axis": axis}
    ideal: Any = {"data": {"values": [{"probability": end, "right": end} for end in (0, 1)]}}
    return _spec(text, values) | {
        **AS_WIDE_AS_THE_PAGE,
        "height": 340,
        "encoding": {
            "x": x | {"title": "probability of the pick"},
            "y": y | {"title": "picks that are right"},
        },
        "layer": [
            ideal | {"mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--muted)"}},
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"color": _color(legend)}},
            {
                "mark": {"type": "point", "filled": True, "opacity": 0.9},
                "encoding": {
                    "color": _color(legend),
                    "shape": _shape(legend),
                    "size": {
                        "field": "n",
                        "type": "quantitative",
                        "scale": {"range": [40, 260]},
                        "legend": None,
                    },
                    "tooltip": [
                        {"field": "model"},
                        {"field": "probability", "format": ".1%"},
                        {"field": "right", "format": ".1%"},
                        {"field": "n"},
                    ],
                },
            },
        ],
    }


def lengths(values: Values, legend: Sequence[Series], text: str) -> Any:
    """Steps over words: values of `words` (where a bin begins), `span`, `share`, `answers`."""
    return _spec(text, values) | {
        **AS_WIDE_AS_THE_PAGE,
        "height": 220,
        "mark": {"type": "area", "interpolate": "step-after", "line": True, "fillOpacity": 0.14},
        "encoding": {
            "x": {
                "field": "words",
                "type": "quantitative",
                "title": "words",
                "axis": {"grid": False, "tickMinStep": 1},
            },
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "title": "answers",
                "axis": {"format": "%"},
            },
            "color": _color(legend, "answers"),
            "tooltip": [
                {"field": "answers"},
                {"field": "span", "title": "words"},
                {"field": "share", "format": ".1%"},
            ],
        },
    }


def _spec(text: str, values: Values) -> dict[str, Any]:
    return {
        "$schema": SCHEMA,
        "description": text,
        "config": CONFIG,
        "data": {"values": list(values)},
    }


def _color(legend: Sequence[Series], field: str = "model") -> dict[str, Any]:
    scale = {"domain": [one.name for one in legend], "range": [one.color for one in legend]}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def _shape(legend: Sequence[Series]) -> dict[str, Any]:
    scale = {"domain": [one.name for one in legend], "range": [one.shape for one in legend]}
    return {"field": "model", "type": "nominal", "scale": scale, "legend": None}
