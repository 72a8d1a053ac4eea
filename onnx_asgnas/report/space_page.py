"""A search space as one page: `analyze --html`."""

from __future__ import annotations

from onnx_asgnas.report.page import page_of
from onnx_asgnas.report.space_data import space_data
from onnx_asgnas.space import SearchSpace


def space_page(space: SearchSpace, name: str) -> str:
    """The page of a search space; `name` is what the model is called in it.

    Raises SpaceError for a space without its model.
    """
    return page_of(space_data(space, name))
