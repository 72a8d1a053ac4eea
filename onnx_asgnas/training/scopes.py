"""Parameters under any name: dotted ones as nested modules, as torch users expect, and the odd ones all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch


class Scope(torch.nn.Module):
    """A module whose parameters and buffers may have any name, with dots or one that torch would refuse."""

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        own = {prefix + name for name in (*self._parameters, *self._buffers)}  # torch takes a dot for a child's name
        unexpected_keys[:] = [key for key in unexpected_keys if key not in own]


def mount(root: Scope, name: str, tensor: torch.Tensor, names: Collection[str]) -> tuple[dict[str, Any], str]:
    """Register a Parameter, or any other tensor as a buffer, so that torch calls it exactly `name`.

    The part before each dot becomes a nested module, unless it is empty, is itself one of `names` (all that will be
    mounted), or is an attribute that modules have; the rest of the name is then kept in one piece. Returns where it
    is: torch's dictionary and the key in it.
    """
    scope, rest, path = root, name, ""
    while "." in rest:
        part, _, after = rest.partition(".")
        path = f"{path}.{part}" if path else part
        if part not in scope._modules:
            if not part or path in names or hasattr(scope, part):
                break
            scope.add_module(part, Scope())
        child = scope._modules[part]
        assert isinstance(child, Scope)
        scope, rest = child, after
    entries: dict[str, Any] = scope._parameters if isinstance(tensor, torch.nn.Parameter) else scope._buffers
    entries[rest] = tensor
    return entries, rest
