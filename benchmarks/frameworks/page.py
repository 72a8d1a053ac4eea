"""docs/frameworks.md."""

from __future__ import annotations

from pathlib import Path


def write(source: Path, path: Path) -> None:
    """Make the page anew."""
