"""Does the compact model give what the full model gives, in onnxruntime, operator by operator as the graphs stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.errors import InputError, ModelError
from onnx_asgnas.evaluation.difference import (
    explain_mismatch,
    has_nan,
    have_same_types,
    is_all_zero,
    relative_difference,
)
from onnx_asgnas.evaluation.half_precision import in_float32, is_half_precision
from onnx_asgnas.evaluation.reference import outputs_in_double
from onnx_asgnas.evaluation.verification import Verification
from onnx_asgnas.graph import ModelSource, TraceGraph, load_model, normalise
from onnx_asgnas.graph.inputs import input_names, made_up_inputs
from onnx_asgnas.graph.runtime import Arrays, run, session

_HALF_TOLERANCE = 5e-3
"""What a model in half precision may differ by as it stands; its copy in float32 is held to the tolerance asked for."""
_TENSORS_AT_ONCE = 50
"""How many intermediate tensors are held in memory while the first that differs is looked for."""


def verify(
    full: ModelSource,
    compact: ModelSource,
    *,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    original: ModelSource | None = None,
    batches: Sequence[int] = (1, 3),
    seed: int = 0,
    tolerance: float = 1e-5,
) -> Verification:
    """Compare the compact model with the full one, whose removed parts are at zero.

    Both run on made-up inputs (ids within their tables, masks of ones), at each of `batches` where an input leaves its
    batch open, and on `inputs` where given (real ones; what they leave out is made up). Of every output the largest
    absolute difference over the largest absolute value counts. Outputs that are missing, of another dtype or shape, or
    NaN fail. A model in half precision may differ by 5e-3, its copy in float32 by `tolerance`. A difference above that
    is looked at again in float64, by ONNX's own reference, and that figure counts: float32 rounds, a deep network can
    amplify that, and one that picks by value, as detectors do, turns it into another choice.
    `original` is the full model before anything was removed, for `moved`. `require()` of the result turns a failure
    into an error.

    Raises ModelError for a model that cannot be read or run, InputError for inputs or an original that do not fit it.
    """
    before, after = _inference_form(load_model(full)), _inference_form(load_model(compact))
    first = None if original is None else _inference_form(load_model(original))
    if first is not None and _signature(first) != _signature(before):
        raise InputError(
            "the original model has other inputs or outputs than the full one",
            fix="Give the full model as it was before anything was removed.",
        )
    feeds = _feeds(before, inputs, batches, seed)
    trials = _trials(before, after, first, tolerance)
    findings = [finding for trial in trials for finding in trial.without_rounding(trial.findings(feeds))]
    return _summary(findings, [remark for trial in trials for remark in trial.remarks])


@dataclass(frozen=True, slots=True)
class _Feed:
    """Inputs that both models get, and how a report calls them."""

    label: str
    arrays: Arrays
    given: bool = False


@dataclass(slots=True)
class _Trial:
    """The models in one precision, and what they may differ by in it."""

    full: onnx.ModelProto
    compact: onnx.ModelProto
    original: onnx.ModelProto | None
    tolerance: float
    precision: str = ""
    optional: bool = False
    remarks: list[str] = field(default_factory=list)

    def findings(self, feeds: Sequence[_Feed]) -> Iterator[_Finding]:
        """Run the models on every feed, and compare output by output.

        A batch that the full model refuses is left out: exporters bake a batch in. Raises ModelError when it refuses
        all, or what the user gave.
        """
        try:
            full, compact = session(self.full), session(self.compact)
            original = None if self.original is None else session(self.original)
        except ModelError as error:
            if not self.optional:
                raise
            self.remarks.append(f"not checked{self.precision}: {error.message}")
            return
        refusals = []
        for feed in feeds:
            try:
                expected = run(full, _fitting(feed.arrays, self.full))
            except ModelError as error:
                if feed.given:
                    raise
                refusals.append(error)
                self.remarks.append(f"{feed.label}: left out, since the full model refuses them")
                continue
            start = None if original is None else run(original, _fitting(feed.arrays, self.full))
            got = self._run_compact(compact, feed)
            for name in dict.fromkeys([*expected, *({} if isinstance(got, str) else got)]):
                yield self._finding(name, expected, got, start, feed)
        if refusals and len(refusals) == len(feeds):
            raise refusals[0]

    def without_rounding(self, findings: Iterable[_Finding]) -> Iterator[_Finding]:
        """The same findings; of those that fail, what float64 says of them."""
        wide: dict[str, tuple[Arrays, Arrays]] = {}
        for finding in findings:
            if self.optional or not (finding.reason and finding.compared):
                yield finding
                continue
            name, feed = finding.output, finding.feed
            try:
                if feed.label not in wide:
                    wide[feed.label] = self._in_double(self.full, feed), self._in_double(self.compact, feed)
            except Exception as error:  # whatever the reference meets: it does not know every operator
                said = (str(error) or type(error).__name__).splitlines()[0]
                self.remarks.append(f"not looked at in float64: {said}")
                yield finding
                continue
            expected, got = wide[feed.label]
            difference = relative_difference(expected[name], got[name])
            if difference > self.tolerance:
                yield finding
                continue
            self.remarks.append(
                f"{feed.label}: rounding in float32 moves output '{name}' by {finding.difference:.1e}; "
                f"in float64 the models differ by {difference:.1e}"
            )
            yield replace(finding, reason="", difference=difference)

    @staticmethod
    def _in_double(model: onnx.ModelProto, feed: _Feed) -> Arrays:
        return outputs_in_double(model, _fitting(feed.arrays, model))

    def first_difference(self, feed: _Feed) -> str | None:
        """The first tensor, in the full model's order, that both models have in one shape and that differs."""
        theirs = {name for node in self.compact.graph.node for name in node.output}
        names: list[str] = [n for node in self.full.graph.node for n in node.output if n and n in theirs]
        full, compact = session(self.full, outputs=names), session(self.compact, outputs=names)
        for start in range(0, len(names), _TENSORS_AT_ONCE):
            part = names[start : start + _TENSORS_AT_ONCE]
            expected = run(full, _fitting(feed.arrays, self.full), part)
            got = run(compact, _fitting(feed.arrays, self.compact), part)
            for name in part:
                alike = not explain_mismatch(expected[name], got[name])
                if alike and relative_difference(expected[name], got[name]) > self.tolerance:
                    return name
        return None

    def _run_compact(self, compact: Any, feed: _Feed) -> Arrays | str:
        """What the compact model gives, or why it gives nothing."""
        apart = set(input_names(self.full)) ^ set(input_names(self.compact))
        if apart:
            return f"only one of the two models has the input '{min(apart)}'"
        try:
            return run(compact, _fitting(feed.arrays, self.compact))
        except ModelError as error:
            return f"on {feed.label} the compact model fails: {error.message}"

    def _finding(self, name: str, expected: Arrays, got: Arrays | str, start: Arrays | None, feed: _Feed) -> _Finding:
        if isinstance(got, str):
            return _Finding(name, self, feed, got, ran=False, compared=False)
        if name not in got or name not in expected:
            having = "full" if name in expected else "compact"
            return _Finding(name, self, feed, f"only the {having} model has an output '{name}'", compared=False)
        difference = relative_difference(expected[name], got[name])
        return _Finding(
            name,
            self,
            feed,
            self._reason(name, expected[name], got[name], difference),
            difference=difference,
            zero=is_all_zero(expected[name]) and is_all_zero(got[name]),
            moved=None if start is None else relative_difference(start[name], got[name]),
            compared=have_same_types(expected[name], got[name]),
        )

    def _reason(self, name: str, expected: Any, got: Any, difference: float) -> str:
        if difference <= self.tolerance:
            return ""
        mismatch = explain_mismatch(expected, got)
        if mismatch:
            return f"output '{name}' is {mismatch}"
        for value, model in ((expected, "full"), (got, "compact")):
            if has_nan(value):
                return f"output '{name}' of the {model} model has NaN in it{self.precision}"
        size = f"{difference:.2g} relative to its largest value" if math.isfinite(difference) else "an infinite amount"
        return f"output '{name}' differs by {size}{self.precision}, and {self.tolerance:g} is allowed"


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one run says of one output; `reason` is why that is a failure, and empty where it is none."""

    output: str
    trial: _Trial
    feed: _Feed
    reason: str
    difference: float = math.inf
    zero: bool = False
    moved: float | None = None
    ran: bool = True
    compared: bool = True

    @property
    def excess(self) -> float:
        """The difference in terms of what is allowed."""
        allowed = self.trial.tolerance
        return self.difference / allowed if allowed else math.inf if self.difference else 0.0


def _trials(
    full: onnx.ModelProto, compact: onnx.ModelProto, original: onnx.ModelProto | None, tolerance: float
) -> list[_Trial]:
    if not is_half_precision(full):
        return [_Trial(full, compact, original, tolerance)]
    return [
        _Trial(full, compact, original, max(tolerance, _HALF_TOLERANCE), " in half precision", optional=True),
        _Trial(
            in_float32(full),
            in_float32(compact),
            None if original is None else in_float32(original),
            tolerance,
            " in a float32 copy",
        ),
    ]


def _feeds(
    model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]] | None, batches: Sequence[int], seed: int
) -> list[_Feed]:
    graph = TraceGraph.of(model)
    shapes = [graph.shape(name) for name in graph.inputs]
    if any(shape and shape[0] is None for shape in shapes):
        feeds = [_Feed(f"made-up inputs (batch {b})", made_up_inputs(graph, b, seed)) for b in dict.fromkeys(batches)]
    else:
        feeds = [_Feed("made-up inputs", made_up_inputs(graph, 1, seed))] if batches else []
    if inputs:
        unknown = sorted(set(inputs) - set(graph.inputs))
        if unknown:
            raise InputError(
                f"the model has no input '{unknown[0]}'",
                fix=f"Its inputs are: {', '.join(graph.inputs)}.",
                input=unknown[0],
            )
        batch = next((len(array) for array in inputs.values() if np.ndim(array)), 1)
        feeds.append(_Feed("the given inputs", made_up_inputs(graph, batch, seed) | dict(inputs), given=True))
    if not feeds:
        raise InputError("there is nothing to verify on", fix="Give batches, or inputs.")
    return feeds


def _fitting(arrays: Arrays, model: onnx.ModelProto) -> Arrays:
    """The arrays in the element types that the model reads: floats as floats, whole numbers as whole numbers."""
    wanted = {
        value.name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for value in model.graph.input
        if value.type.HasField("tensor_type")
    }
    return {
        name: np.asarray(array).astype(wanted[name], copy=False)
        if name in wanted and _number_kind(np.asarray(array).dtype) == _number_kind(wanted[name])
        else array
        for name, array in arrays.items()
    }


def _number_kind(dtype: np.dtype[Any]) -> str:
    """One letter for floats (bfloat16 included, which numpy holds for void), one for whole numbers."""
    return {"u": "i", "V": "f"}.get(dtype.kind, dtype.kind)


def _inference_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as it stands, so that nothing of ours is between it and the check; its normal form if it trains."""
    return normalise(model) if any(_trains(node) for node in model.graph.node) else model


def _trains(node: onnx.NodeProto) -> bool:
    if node.op_type == "BatchNormalization":
        return any(a.name == "training_mode" and a.i for a in node.attribute)
    return node.op_type == "Dropout" and len(node.input) > 2


def _signature(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    return set(input_names(model)), {value.name for value in model.graph.output}


def _summary(findings: Sequence[_Finding], remarks: Sequence[str]) -> Verification:
    worst = max(findings, key=lambda finding: finding.excess)
    passed = not any(finding.reason for finding in findings)
    moved = [finding.moved for finding in findings if finding.moved is not None]
    outputs: dict[str, float] = {}
    for finding in findings:
        outputs[finding.output] = max(finding.difference, outputs.get(finding.output, 0.0))
    zero = [name for name in outputs if all(f.zero for f in findings if f.output == name)]
    notes = [f"output '{name}' is all zero in both models, so that they agree on it says nothing" for name in zero]
    if moved and max(moved) == 0.0:
        notes.append("the removal moved no output of the original model, so that the two agree says little")
    return Verification(
        passed=passed,
        max_relative_difference=worst.difference,
        tolerance=worst.trial.tolerance,
        moved=max(moved, default=None),
        worst_output=worst.output,
        first_tensor=worst.trial.first_difference(worst.feed) if worst.reason and worst.ran else None,
        reason=worst.reason,
        outputs=outputs,
        runs=tuple(dict.fromkeys(finding.feed.label for finding in findings)),
        remarks=tuple(dict.fromkeys([*remarks, *notes])),
    )
