from __future__ import annotations

from collections.abc import Callable

import pytest

from onnx_asgnas.report import numbers


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (numbers.count, 0, "0"),
        (numbers.count, 12610, "12,610"),
        (numbers.count, 999_999, "999,999"),
        (numbers.count, 2_558_096, "2.56 M"),
        (numbers.count, 25_580_960, "25.6 M"),
        (numbers.count, 4.1e9, "4.10 G"),
        (numbers.size, 12, "12 B"),
        (numbers.size, 61202, "61.2 kB"),
        (numbers.size, 102_000_000, "102 MB"),
        (numbers.milliseconds, 0.12143, "0.121 ms"),
        (numbers.milliseconds, 9.996, "10.0 ms"),
        (numbers.milliseconds, 1234.5, "1,234 ms"),
        (numbers.duration, 42.06, "42.1 s"),
        (numbers.duration, 99.99, "1 min 40 s"),
        (numbers.duration, 200, "3 min 20 s"),
        (numbers.duration, 7500, "2 h 5 min"),
        (numbers.duration, 800_000, "9 days"),
        (numbers.percent, 0.8312, "83.1 %"),
        (numbers.percent, 1, "100.0 %"),
    ],
)
def test_numbers_as_people_read_them(show: Callable[[float | None], str], value: float, text: str) -> None:
    assert show(value) == text
    assert show(None) == "–"


def test_changes() -> None:
    assert numbers.change(12610, 4890) == "−61.2 %"
    assert numbers.change(100, 125) == "+25.0 %"
    assert numbers.change(100, 100.001) == "0.0 %"
    assert numbers.change(0, 5) == numbers.change(None, 5) == numbers.change(5, None) == "–"
    assert numbers.points(0.831, 0.829) == "−0.2 points"
    assert numbers.points(0.5, 0.75) == "+25.0 points"
    assert numbers.points(None, 0.5) == "–"
