"""One network, analysed and cut by us and by the others in turn.

    python -m benchmarks.peers.speed NAME EXPORTER FILE ROUNDS {peers,alone}

analysis.py runs it for each.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import onnx

from benchmarks.peers.pairs import Contender, in_turn, report
from benchmarks.peers.records import circumstances
from onnx_asgnas.config import Target
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import SearchSpace, analyze

AGAINST = {"analysis": "torch-pruning analysis", "cut": "torch-pruning prune"}
"""What each of our two is compared with."""


def main() -> None:
    """Measure one network, and report."""
    name, exporter, file, rounds, company = sys.argv[1:]
    around = circumstances()
    model = onnx.load(file)
    contenders = ours(model) | (peers(name, model) if company == "peers" else {})
    times = in_turn(contenders, int(rounds))
    pairs = {mine: (times[mine], times[its]) for mine, its in AGAINST.items() if its in times}
    record = {
        "kind": "speed",
        "model": name,
        "exporter": exporter,
        "nodes": len(model.graph.node),
        "seconds": {label: found.to_dict() for label, found in times.items()},
        "ratio": {mine: round(one.ratio(other), 3) for mine, (one, other) in pairs.items()},
        "cpu_ratio": {mine: round(one.cpu_ratio(other), 3) for mine, (one, other) in pairs.items()},
    }
    report([record | around])


def ours(model: onnx.ModelProto) -> dict[str, Contender]:
    """Analysis of the loaded model, and half the channels cut from it: analysis, choice and surgery, no check.

    As with the others' groups, the analysis ends with every group at hand. Once more with all else that a space can
    tell (what could go, costs, and the reasons for what stays), which nobody else is asked for.
    """
    return {
        "analysis": (lambda: model, lambda ready: enumerated(analyze(ready, mode="prune"))),
        "analysis, told": (lambda: model, lambda ready: told(analyze(ready, mode="prune"))),
        "cut": (lambda: model, lambda ready: cut(ready, Target(uniform=0.5)).compact),
    }


def enumerated(space: SearchSpace) -> object:
    """The channel group of every index of every initializer axis, and the family of every group."""
    channels = space.channels
    return [(axis.owner, axis.axis, channels.numbers_on(axis)) for axis in channels.axes], channels.family_of


def told(space: SearchSpace) -> object:
    """All that a space says of a network as a whole."""
    return space.channel_groups, space.max_removable, space.frozen, space.params, space.macs


def peers(name: str, model: onnx.ModelProto) -> dict[str, Contender]:
    """torch-pruning on the loaded module, and onnxsim, which the other tool that prunes ONNX needs first."""
    import onnxsim
    import torch

    from benchmarks.peers import pruner
    from benchmarks.peers.networks import module_of

    torch.set_num_threads(1)
    module, image = module_of(name)

    def simplify(ready: Any) -> object:
        return onnxsim.simplify(ready)

    return {
        "torch-pruning analysis": (lambda: module, lambda ready: pruner.groups(ready, image)),
        "torch-pruning prune": (lambda: copy.deepcopy(module), lambda ready: pruner.prune(ready, image)),
        "onnxsim": (lambda: model, simplify),
    }


if __name__ == "__main__":
    main()
