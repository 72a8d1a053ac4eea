"""Branches."""

from __future__ import annotations

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value


@rewrite("If")
def rewrite_if(site: Site) -> list[Value]:
    """The branch that a constant condition takes; a gradient through another ends the runtime's process."""
    condition = site.input(0).constant
    if condition is None:
        raise site.refusal("its condition is computed by the network")
    branch = site.attribute("then_branch" if condition.item() else "else_branch")
    return site.graph.inline_branch(site, branch)
