"""All networks of the corpus, in the order in which they are exported.

The name tells the library, so that the export of one network imports no other one.
"""

from __future__ import annotations

from importlib import import_module

from tools.corpus.entry import Entry

_LIBRARIES = {"timm_": "timm_models", "hf_": "huggingface_models", "": "torchvision_models"}


def corpus() -> list[Entry]:
    """Those in front first, each rank by size."""
    found = [entry for library in _LIBRARIES.values() for entry in _entries(library)]
    return sorted(found, key=lambda entry: (entry.rank, entry.millions))


def entry_of(name: str) -> Entry:
    """The network of this name; raises KeyError where there is none."""
    library = next(library for prefix, library in _LIBRARIES.items() if name.startswith(prefix))
    return {entry.name: entry for entry in _entries(library)}[name]


def _entries(library: str) -> list[Entry]:
    return list(import_module(f"tools.corpus.{library}").entries())
