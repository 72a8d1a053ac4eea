"""A search space as one page that opens in any browser, without a network: `analyze --html`."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

from onnx_asgnas.report.space_data import space_data
from onnx_asgnas.space import SearchSpace

SCRIPTS = (
    "network.js",
    "states.js",
    "drawing.js",
    "details.js",
    "tables.js",
    "search.js",
    "page.js",
)
"""The page's own scripts, in the order in which they load."""


def space_page(space: SearchSpace, name: str) -> str:
    """The page of a search space; `name` is what the model is called in it.

    Raises SpaceError for a space without its model. The page holds all that it needs: the drawing library
    (Cytoscape.js), the layout (elkjs, in a worker of its own), their licences, and the data.
    """
    return page_of(space_data(space, name))


def page_of(data: dict[str, Any]) -> str:
    """The page that shows this data."""
    template = _asset("page.html")
    parts = {
        "TITLE": html.escape(f"{data['model']} – search space"),
        "STYLE": _asset("page.css"),
        "DATA": _json(data),
        "LAYOUT_WORKER": _asset("elk-worker.min.js"),
        "LAYOUT_LIBRARY": _asset("elk-api.js"),
        "LAYOUT": _asset("layout.js"),
        "DRAWING_LIBRARY": _asset("cytoscape.min.js"),
        "SCRIPTS": "\n".join(f"<script>\n{_asset(name)}</script>" for name in SCRIPTS),
        "LICENCES": html.escape(_asset("LICENSES.txt")),
    }
    pieces = template.split("%%")
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def _json(data: dict[str, Any]) -> str:
    """JSON that may stand in a script element whatever names it holds: no `</script` and no `<!--` ends or opens it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
