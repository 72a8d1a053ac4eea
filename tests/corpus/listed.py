"""What the corpus cannot do yet, by name and with a reason: the lists beside the tests, which may only shrink."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path


@cache
def listed(name: str) -> Mapping[str, str]:
    """One list of unsupported.json: names and reasons."""
    table: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("unsupported.json").read_text("utf-8"))
    return table[name]


def assert_listed(found: Iterable[str], name: str) -> None:
    """What was found is what the list says: nothing new, and what works by now is taken out of it."""
    names = set(found)
    assert not sorted(names - set(listed(name))), f"not in the list '{name}'"
    assert not sorted(set(listed(name)) - names), f"works by now: take it out of the list '{name}'"
