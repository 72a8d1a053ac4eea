"""docs/operators.md is what the registry says."""

from __future__ import annotations

from tools.operators_page import TARGET, page


def test_the_page_of_operators_is_up_to_date() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "make it again: python -m tools.operators_page"
