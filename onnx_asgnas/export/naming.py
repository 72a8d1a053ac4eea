"""Names in the code: identifiers, made from the network's own names where those are fit for it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable
from itertools import count

_LONGEST = 28
_TAKEN = frozenset(
    {"self", "torch", "nn", "F", "Path", "load_file", "load", "tuple", "int", "float", "super", "WEIGHTS"}
)


def identifier(text: str, taken: Collection[str] = (), default: str = "value") -> str:
    """A new identifier that says what the text says; none of those taken, and no word of the language."""
    stem = re.sub(r"[^0-9a-zA-Z_]+", "_", text).strip("_")
    while len(stem) > _LONGEST:
        _, cut, rest = stem.partition("_")
        stem = rest.strip("_") if cut and rest else stem[-_LONGEST:]
    if not stem or stem[0].isdigit():
        stem = f"{default}_{stem}" if stem else default
    if keyword.iskeyword(stem) or keyword.issoftkeyword(stem) or stem in _TAKEN:
        stem += "_"
    numbered = (f"{stem}_{number}" for number in count(2))
    return stem if stem not in taken else next(each for each in numbered if each not in taken)


def member_names(paths: Iterable[tuple[str, ...]], block: tuple[str, ...], taken: Collection[str]) -> list[str]:
    """Names of the members of a block: the part of each path below the block's, else its end."""
    used = set(taken)
    names = []
    for path in paths:
        rest = path[len(block) :] if path[: len(block)] == block and len(path) > len(block) else path[-1:]
        if rest[0].isdigit():
            below = path[: len(path) - len(rest)]
            rest = (*(below[-1:] or ("layer",)), *rest)
        names.append(identifier("_".join(rest), used, "layer"))
        used.add(names[-1])
    return names


def class_name(path: tuple[str, ...], taken: Collection[str]) -> str:
    """The name of a block's class after the last words of its path: layer1.0 is a Layer, encoder_layer_3 too."""
    words = [part for part in path if not part.isdigit()] or ["block"]
    numbered = bool(path) and path[-1].isdigit()
    stem = re.sub(r"[^a-zA-Z]+", "_", words[-1]).strip("_") or "block"
    if numbered and stem.endswith("s") and not stem.endswith("ss"):
        stem = stem[:-1]
    name = "".join(word[:1].upper() + word[1:] for word in stem.split("_"))
    if numbered and not name.endswith(("Block", "Layer")):
        name += "Block"
    found = identifier(name, default="Block")
    numbers = (f"{found}{number}" for number in count(2))
    return found if found not in taken else next(each for each in numbers if each not in taken)


def safe_text(text: str) -> str:
    """A text that may stand in a docstring: printable ASCII without quotes and backslashes, and not long."""
    return re.sub(r"[^ !#-\[\]-~]", "?", text)[:60]
