"""Numbers as people read them; what was not measured is a dash."""

from __future__ import annotations

DASH = "–"
_FRACTIONS = frozenset({"top1", "top5", "miou", "pixel_accuracy", "binary_accuracy"})


def count(number: float | None) -> str:
    """A count: 12,610, or 2.56 M from a million on."""
    return DASH if number is None else _scaled(number, 1e6, (("G", 1e9), ("M", 1e6)))


def size(number: float | None) -> str:
    """A number of bytes: 61.2 kB."""
    if number is None:
        return DASH
    return f"{_scaled(number, 1e3, (('G', 1e9), ('M', 1e6), ('k', 1e3)))}{'B' if number >= 1e3 else ' B'}"


def milliseconds(number: float | None) -> str:
    """Milliseconds to three digits: 0.121 ms, 12.1 ms."""
    return DASH if number is None else f"{_three_digits(number)} ms"


def duration(seconds: float | None) -> str:
    """A length of time: 42.1 s, 3 min 20 s, 2 h 5 min, 9 days."""
    if seconds is None:
        return DASH
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 100 else f"{round(hours / 24):,} days"


def percent(fraction: float | None) -> str:
    """A fraction in percent: 83.1 %."""
    return DASH if fraction is None else f"{100 * fraction:.1f} %"


def metric(name: str, value: float | None) -> str:
    """A metric of this name: fractions in percent, others to four digits."""
    return percent(value) if is_fraction(name) else DASH if value is None else f"{value:.4g}"


def is_fraction(name: str) -> bool:
    """Is the metric of this name a fraction from 0 to 1?"""
    return name.rpartition(".")[2] in _FRACTIONS


def change(before: float | None, after: float | None) -> str:
    """By how much a quantity went up or down: −61.2 %."""
    return DASH if not before or after is None else _signed(100 * (after / before - 1), " %")


def points(before: float | None, after: float | None) -> str:
    """The difference of two fractions in points of a percent: −0.2 points."""
    return DASH if before is None or after is None else _signed(100 * (after - before), " points")


def _scaled(number: float, whole_below: float, units: tuple[tuple[str, float], ...]) -> str:
    if number < whole_below:
        return f"{number:,.0f}"
    unit, factor = next((u, f) for u, f in units if number >= f)
    return f"{_three_digits(number / factor)} {unit}"


def _three_digits(number: float) -> str:
    decimals = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2 if abs(number) >= 0.9995 else 3
    return f"{number:,.{decimals}f}"


def _signed(number: float, unit: str) -> str:
    text = f"{abs(number):.1f}"
    sign = "" if float(text) == 0 else "−" if number < 0 else "+"
    return f"{sign}{text}{unit}"
