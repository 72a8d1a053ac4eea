"""The search space: what `analyze` finds, what training chooses from, what construct checks; JSON both ways."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.config import Mode, Target
from onnx_asgnas.errors import InputError, SpaceError, UnsupportedOperatorError
from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.graph.trace import uncollected
from onnx_asgnas.operators import Rule, rules_of
from onnx_asgnas.space.channel_cost import ChannelCost
from onnx_asgnas.space.channel_selection import Widths
from onnx_asgnas.space.channels import Channels
from onnx_asgnas.space.cost import Cost
from onnx_asgnas.space.coupling import Coupling, Frozen
from onnx_asgnas.space.families import ChannelFamily, channel_families
from onnx_asgnas.space.joint_selection import JointSelection
from onnx_asgnas.space.joints import Joints
from onnx_asgnas.space.reach import Reach
from onnx_asgnas.space.selection import Largest, Selection, choose, largest
from onnx_asgnas.space.structures import Group, Slice, Structure, StructureFinder
from onnx_asgnas.space.validity import RemovalState

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the JSON form."""
_NOTHING = Largest(structures=0, params=0, macs=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Removable:
    """What can certainly be removed: minimal structures, parameters and multiply-accumulates, each at its best."""

    structures: int
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelGroups:
    """How many groups of channels the network has, and how many could leave by themselves."""

    total: int
    free: int


class SpaceParts:
    """A model as analysis sees it: its graph, the rules of its operators, its channel labels, joints and costs.

    `sources` labels the channels that only a removed structure can take along.
    """

    def __init__(self, graph: TraceGraph, *, sources: bool) -> None:
        self.graph, self._sources = graph, sources
        self.rules: list[Rule | None] = rules_of(graph)

    @cached_property
    def coupling(self) -> Coupling:
        """The channel labels and the groups in which they leave."""
        return Coupling.of(self.graph, self.rules, sources=self._sources)

    @cached_property
    def joints(self) -> Joints:
        """Where a zero operand may be dropped."""
        return Joints(self.graph, self.rules)

    @cached_property
    def costs(self) -> ChannelCost:
        """Parameters and multiply-accumulates by the labels that leave."""
        return ChannelCost(self.graph, self.rules, self.coupling)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a search space as a whole."""

    max_removable: Removable
    channel_groups: ChannelGroups
    frozen: tuple[Frozen, ...]
    params: int
    macs: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All removal structures of one model, what they cost, and what cannot be removed and why.

    `protected` are the names of the nodes that the user wants to stay, `unknown` the operators that nobody registered.

    A space belongs to the model that it was made from: `graph` is that model's trace graph. One read from JSON without
    its model has none, and `bind` gives it one.
    """

    mode: Mode
    structures: tuple[Structure, ...]
    protected: tuple[str, ...]
    unknown: tuple[str, ...]
    stated: Facts | None = field(default=None, repr=False, compare=False)
    graph: TraceGraph | None = field(default=None, repr=False, compare=False)

    @cached_property
    def facts(self) -> Facts:
        """What is known of the whole; worked out when it is first asked for, or as a file stated it."""
        return self.stated if self.stated is not None else self._work_out()

    @property
    def max_removable(self) -> Removable:
        """How much can certainly be removed."""
        return self.facts.max_removable

    @property
    def channel_groups(self) -> ChannelGroups:
        """How many groups of channels there are, and how many may leave."""
        return self.facts.channel_groups

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """What keeps channels, by operator and reason."""
        return self.facts.frozen

    @property
    def params(self) -> int:
        """The trainable parameters of the full model."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """The multiply-accumulates of the full model for one example."""
        return self.cost.macs

    @property
    def fingerprint(self) -> str:
        """A hash of the structure of the model that the space was made from."""
        return self.facts.fingerprint

    @cached_property
    def candidates(self) -> tuple[Structure, ...]:
        """The erasable structures, in topological order; a selection names them by their place here."""
        return tuple(s for s in self.structures if s.erasable)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The zero-invariant groups: of each candidate, then (in the modes prune and joint) of the channels.

        A larger structure's may share slices with a smaller one's, and with channels.
        """
        return tuple(s.group for s in self.candidates) + (() if self.mode == "erase" else self.channels.groups())

    @cached_property
    def parts(self) -> SpaceParts:
        """The trace graph and what analysis made of it."""
        if self.graph is None:
            raise SpaceError("this search space has no model", fix="Bind it: space.bind(model).")
        return SpaceParts(self.graph, sources=self.mode != "prune")

    @cached_property
    def channels(self) -> Channels:
        """The channel groups that may leave."""
        return Channels(self.parts.coupling, self.protected)

    def channel_families(self) -> tuple[ChannelFamily, ...]:
        """The channel groups layer by layer, in every mode: members, reasons, and what leaves with them."""
        return channel_families(self.channels, self.parts.costs)

    def removal_state(self, stays: Iterable[str] = ()) -> RemovalState:
        """The full network, ready for removals; `erase` takes a place in `candidates`.

        `stays` are names of nodes that may not be removed, beside those that are protected.
        """
        parts = self.parts
        return RemovalState(parts.graph, parts.rules, parts.joints, self.candidates, (*self.protected, *stays))

    def labels_of(self, candidates: Iterable[int]) -> NDArray[np.bool_]:
        """The channel labels that leave with these structures, bool [labels]."""
        coupling, joints = self.parts.coupling, self.parts.joints
        gone = np.zeros(coupling.book.count, bool)
        for tensor in (self.candidates[index].tensor for index in candidates):
            for node, axis in joints.concats_of(tensor):
                labels = coupling.operand_labels(node, axis, tensor)
                assert labels is not None  # or it would not be erasable
                gone[coupling.closure(labels)] = True
        return gone

    def choose(
        self,
        rank: Callable[[tuple[int, ...]], NDArray[np.float64]],
        target: Target,
        *,
        hierarchy: bool = True,
        by_gain: bool = False,
        round_to: int = 1,
        min_channels: int = 1,
    ) -> Selection:
        """The groups to remove for a target, most redundant first, never one that makes the network invalid.

        `rank` gives the redundancy of every group (high goes first), given those chosen so far. With `by_gain`
        redundancy is minus a price, and the best is the lowest price for each unit (structure, parameter, MAC) that
        the removal takes along: a larger structure may be worth more than it costs. With `hierarchy` off validity is
        not asked for, as in DHSPG. Channels leave so that a layer keeps a multiple of `round_to` of them and at least
        `min_channels`; in joint mode structures go first, channels make up the rest. Raises TargetError for a target
        that cannot be reached.
        """
        widths = Widths(round_to=round_to, at_least=min_channels)
        stays: list[str] = []
        while True:
            state = self.removal_state(stays)
            if self.mode == "erase":
                selection = choose(
                    state, self.candidates, self.cost, rank, target, hierarchy=hierarchy, by_gain=by_gain
                )
            else:
                joint = self._joint(state if self.candidates else None)
                selection = joint.choose(rank, target, widths, by_gain=by_gain)
            structures = [index for index in selection.chosen if index < len(self.candidates)]
            last = self.reach.first_lost(structures) if hierarchy else None
            if last is None:
                return selection
            tensor = self.candidates[structures[last]].tensor
            logger.info("%s stays: without it an output would read an input no more", tensor)
            stays.append(self.parts.graph.nodes[self.parts.graph.producer[tensor]].name)

    @cached_property
    def reach(self) -> Reach:
        """Which outputs read which inputs, in numbers."""
        return Reach(self)

    def _joint(self, state: RemovalState | None) -> JointSelection:
        return JointSelection(
            state=state,
            structures=self.candidates,
            channels=self.channels,
            costs=self.parts.costs,
            full=self.cost,
            labels_of=self.labels_of,
        )

    @cached_property
    def cost(self) -> Cost:
        """What the full model costs."""
        if self.stated is not None:
            return Cost(params=self.stated.params, macs=self.stated.macs)
        return self.parts.costs.full

    def _work_out(self) -> Facts:
        best = largest(self.removal_state(), self.candidates, self.cost) if self.candidates else _NOTHING
        params, macs = best.params, best.macs
        if self.mode != "erase":
            least = self._joint(None).least()
            params, macs = max(params, self.params - least.params), max(macs, self.macs - least.macs)
        total, free = self.parts.coupling.channel_groups()
        return Facts(
            max_removable=Removable(structures=best.structures, params=params, macs=macs),
            channel_groups=ChannelGroups(total=total, free=free),
            frozen=self.parts.coupling.frozen(),
            params=self.params,
            macs=self.macs,
            fingerprint=fingerprint_of(self.parts.graph),
        )

    def bind(self, source: ModelSource | TraceGraph) -> SearchSpace:
        """This space with its model; raises SpaceError if the model is another one."""
        graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
        if graph is self.graph:
            return self
        if fingerprint_of(graph) != self.fingerprint:
            raise SpaceError(
                "this search space was made from another model", fix="Make it again: onnx-asgnas analyze MODEL -o FILE."
            )
        return replace(self, stated=self.facts, graph=graph)

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data, without the model."""
        own = {name: getattr(self, name) for name in ("mode", "structures", "protected", "unknown")}
        known = {f.name: getattr(self.facts, f.name) for f in fields(Facts)}
        return {"format": FORMAT, **{name: _plain(value) for name, value in (own | known).items()}}

    def to_json(self) -> str:
        """The space as JSON text, without the model."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, model: ModelSource | TraceGraph | None = None) -> SearchSpace:
        """The space that `to_json` wrote, bound to its model where given; raises SpaceError if it is none."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("format") != FORMAT:
                raise SpaceError("this search space is of another version", fix="Make it again with analyze.")
            space = cls(
                mode=values["mode"],
                structures=tuple(_structure(s) for s in values["structures"]),
                protected=tuple(values["protected"]),
                unknown=tuple(values["unknown"]),
                stated=Facts(
                    max_removable=Removable(**values["max_removable"]),
                    channel_groups=ChannelGroups(**values["channel_groups"]),
                    frozen=tuple(Frozen(**f) for f in values["frozen"]),
                    params=values["params"],
                    macs=values["macs"],
                    fingerprint=values["fingerprint"],
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpaceError(
                f"this is no search space: {error}", fix="Make one: onnx-asgnas analyze MODEL -o FILE."
            ) from None
        return space if model is None else space.bind(model)

    @classmethod
    def read(cls, path: str | Path, model: ModelSource | TraceGraph | None = None) -> SearchSpace:
        """The space in a JSON file; raises SpaceError where it cannot be read."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpaceError(f"{path} cannot be read: {error}", fix="Check the path.", path=str(path)) from None
        return cls.from_json(text, model)


def analyze(
    source: ModelSource | TraceGraph, *, mode: Mode = "erase", protect: Iterable[str] = (), strict: bool = False
) -> SearchSpace:
    """The search space of any ONNX model: its removal structures, and the reason for each that must stay.

    `protect` are patterns of operator, tensor or weight names, or of operator types ("op:Gemm"): the operators that
    match one stay, and with them their channels and every structure whose removal would take one along. Raises
    InputError for a pattern that nothing matches, UnsupportedOperatorError with `strict` where an operator is unknown,
    ModelError for a model that cannot be read.
    """
    with uncollected():
        return _analyze(source, mode, protect, strict)


def _analyze(source: ModelSource | TraceGraph, mode: Mode, protect: Iterable[str], strict: bool) -> SearchSpace:
    graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
    parts = SpaceParts(graph, sources=mode != "prune")
    unknown = tuple(sorted({n.op_type for n, rule in zip(graph.nodes, parts.rules, strict=True) if rule is None}))
    if strict and unknown:
        raise UnsupportedOperatorError(
            f"unknown operators: {', '.join(unknown)}",
            fix="Without --strict they stay as they are, with all they touch.",
        )
    protected = _protected_nodes(graph, protect)
    found = [] if mode == "prune" else StructureFinder(graph, parts.rules, parts.coupling, parts.joints).find()
    space = SearchSpace(
        mode=mode,
        structures=tuple(_without(s, protected) for s in found),
        protected=tuple(protected),
        unknown=unknown,
        graph=graph,
    )
    space.__dict__["parts"] = parts
    _ = space.channels if mode != "erase" else None
    return space


def fingerprint_of(graph: TraceGraph) -> str:
    """A hash of a model's structure: its operators, tensors and shapes, not its weights."""
    digest = hashlib.sha256()
    for node in graph.nodes:
        digest.update(node.SerializeToString(deterministic=True))
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name]
        digest.update(f"{name}:{tensor.data_type}:{list(tensor.dims)};".encode())
    digest.update(repr((graph.inputs, graph.outputs)).encode())
    return digest.hexdigest()[:16]


_BY_TYPE = "op:"
"""What a pattern of operator types begins with."""


def _protected_nodes(graph: TraceGraph, patterns: Iterable[str]) -> dict[str, str]:
    """The nodes that match a pattern, each with the first such pattern; raises InputError for one that none matches.

    A name is that of the node, of what it gives or of an initializer that it reads; "op:Gemm" is an operator type.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        matching = [node.name for node in graph.nodes if _matches(graph, node, pattern)]
        if not matching:
            raise InputError(
                f"nothing matches the pattern {pattern!r} of what to protect",
                fix="Give names of operators, tensors or weights, as 'head*', or an operator type, as 'op:Gemm'.",
                pattern=pattern,
            )
        for name in matching:
            found.setdefault(name, pattern)
    return found


def _matches(graph: TraceGraph, node: onnx.NodeProto, pattern: str) -> bool:
    if pattern.startswith(_BY_TYPE):
        return fnmatchcase(node.op_type, pattern.removeprefix(_BY_TYPE))
    weights = (name for name in node.input if name in graph.initializers)
    return any(fnmatchcase(name, pattern) for name in (node.name, *node.output, *weights))


def _without(structure: Structure, protected: Mapping[str, str]) -> Structure:
    """The structure, not erasable any more where a protected node lies in its region."""
    hit = next((protected[name] for name in structure.region if name in protected), None)
    if hit is None or not structure.erasable:
        return structure
    return replace(structure, erasable=False, minimal=False, reason=f"protected by '{hit}'")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _structure(values: dict[str, Any]) -> Structure:
    pieces = {
        name: tuple(Slice(**{**s, "indices": tuple(s["indices"])}) for s in values[name]) for name in ("zeroed", "cut")
    }
    names = {name: tuple(values[name]) for name in ("segment", "region", "variables")}
    return Structure(**{**values, **names, **pieces})
