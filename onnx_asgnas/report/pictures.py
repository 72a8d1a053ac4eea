"""Pictures by matplotlib: the same data give the same file, with text as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_asgnas.errors import OutputError, PackageError

_SETTINGS: Any = {
    "svg.hashsalt": "onnx-asgnas",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
}


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches; raises PackageError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PackageError(
            "a picture needs matplotlib, which is not installed",
            fix="pip install 'onnx-asgnas[bench]', or leave the picture out.",
        ) from None
    with matplotlib.rc_context(_SETTINGS):
        return Figure(figsize=(width, height), layout="constrained")


def axes_of(figure: Any, rows: int = 1, columns: int = 1, **shared: Any) -> Any:
    """Axes in this package's style."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        return figure.subplots(rows, columns, **shared)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as the kind of picture that the name tells; raises OutputError where that fails."""
    import matplotlib

    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(_SETTINGS):
            figure.savefig(path, metadata=undated)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} cannot be written: {error}", fix="Give a name that ends in .svg, .png or .pdf.", path=str(path)
        ) from None
