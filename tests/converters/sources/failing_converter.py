"""Converters that fail, for the tests of processes."""

from __future__ import annotations

import threading
from typing import Any


def convert(source: Any) -> Any:
    raise KeyError("nothing here")


def hang(source: Any) -> Any:
    threading.Event().wait()
