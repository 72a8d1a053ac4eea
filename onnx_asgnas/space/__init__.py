"""The hierarchical search space: removal structures, channel groups, validity, cost, selection."""

from onnx_asgnas.space.cost import Cost, cost_of
from onnx_asgnas.space.search_space import SearchSpace, analyze
from onnx_asgnas.space.selection import Selection
from onnx_asgnas.space.structures import Group, Slice, Structure
from onnx_asgnas.space.validity import RemovalState
from onnx_asgnas.space.zeroing import zeroed

__all__ = [
    "Cost",
    "Group",
    "RemovalState",
    "SearchSpace",
    "Selection",
    "Slice",
    "Structure",
    "analyze",
    "cost_of",
    "zeroed",
]
