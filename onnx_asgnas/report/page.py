"""One page that opens in any browser, without a network: the drawing of a search space, or the report of a run."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "space": ("network.js", "states.js", "drawing.js", "details.js", "tables.js", "search.js", "page.js"),
    "run": (
        "network.js",
        "states.js",
        "drawing.js",
        "details.js",
        "tables.js",
        "search.js",
        "page.js",
        "chart.js",
        "run.js",
    ),
}
"""The own scripts of each kind of page, in the order in which they load."""
_STYLES: Mapping[str, tuple[str, ...]] = {"space": ("page.css",), "run": ("page.css", "run.css")}

Kind = Literal["space", "run"]


def page_of(data: Mapping[str, Any], kind: Kind = "space") -> str:
    """The page that shows this data; `data["model"]` is what the model is called in it.

    It holds all that it needs: the drawing library (Cytoscape.js), the layout (elkjs, in a worker of its own), their
    licences, and the data.
    """
    what = {"space": "search space", "run": "full and compact"}[kind]
    body = _filled(f"{kind}.html", FACTS=_asset("facts.html"), NETWORK=_asset("network.html"))
    return _filled(
        "page.html",
        TITLE=html.escape(f"{data['model']} – {what}"),
        KIND=kind,
        STYLE="".join(map(_asset, _STYLES[kind])),
        BODY=body.replace("%%LICENCES%%", html.escape(_asset("LICENSES.txt"))),
        DATA=_json(data),
        LAYOUT_WORKER=_asset("elk-worker.min.js"),
        LAYOUT_LIBRARY=_asset("elk-api.js"),
        LAYOUT=_asset("layout.js"),
        DRAWING_LIBRARY=_asset("cytoscape.min.js"),
        SCRIPTS="\n".join(f"<script>\n{_asset(name)}</script>" for name in SCRIPTS[kind]),
    )


def _filled(template: str, **parts: str) -> str:
    """A template with its places filled; what is filled in is not looked at again."""
    pieces = _asset(template).split("%%")
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def _json(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a script element whatever names it holds: no `</script` and no `<!--` ends or opens it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
