"""From a source to a checked ONNX model, with a report: `convert` and `convert_with_report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from onnx_asgnas.converters import batchnorm, registry
from onnx_asgnas.converters.export import Source
from onnx_asgnas.converters.finishing import checked, compare, finish
from onnx_asgnas.converters.inputs import InputSpec, parse_input
from onnx_asgnas.converters.naming import Names
from onnx_asgnas.converters.onnx_files import read_onnx
from onnx_asgnas.errors import ConversionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """An ONNX model and what is known about how well it matches its source.

    `max_relative_difference` is the largest |source - ONNX| over the largest |source|, over all outputs and the batch
    sizes tried; None where the source cannot be run (it is an ONNX model already). `exporter` wrote the model, in
    `environment` (None: in this one). `normalisations` is how many batch normalisations the source has (None: not
    known), `unfolded` how many identities were put in for those that the exporter folded.
    """

    model: onnx.ModelProto
    max_relative_difference: float | None = None
    batch_sizes: tuple[int, ...] = ()
    exporter: str | None = None
    environment: str | None = None
    names: Names = field(default_factory=Names)
    normalisations: int | None = None
    unfolded: int = 0
    notes: tuple[str, ...] = ()
    operators: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = Counter(node.op_type for node in self.model.graph.node)
        object.__setattr__(self, "operators", dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))

    @property
    def folded(self) -> int:
        """Batch normalisations of the source that are not in the model."""
        kept = self.operators.get("BatchNormalization", 0) - self.unfolded
        return max(0, (self.normalisations or 0) - kept)


def convert(
    source: str,
    *,
    inputs: Sequence[str] = (),
    unfold_bn: bool = False,
    trust: bool = False,
    time_limit: float | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a source, checked by onnx.checker and, where the source can be run, against its outputs.

    `inputs` says what the model reads where the source does not: `"x:float32[N,3,32,32]"` each. `unfold_bn` puts
    identities where an exporter has folded batch normalisations; `trust` allows files that run code when they are
    loaded; `time_limit` is in seconds. Raises ConversionError when the source cannot be converted, ModelError when it
    is an ONNX file that cannot be used.
    """
    return convert_with_report(source, inputs=inputs, unfold_bn=unfold_bn, trust=trust, time_limit=time_limit).model


def convert_with_report(
    source: str,
    *,
    inputs: Sequence[str] = (),
    unfold_bn: bool = False,
    trust: bool = False,
    time_limit: float | None = None,
    log: Path | None = None,
) -> Conversion:
    """As `convert`, with all that is known; what an exporter that fails has said goes to `log`."""
    specs = tuple(map(parse_input, inputs))
    scheme, body = registry.split(source)
    if scheme is None:
        return _of_file(source, specs, unfold_bn=unfold_bn)
    export, environment = registry.export(
        scheme, Source(body=body, inputs=specs, trust=trust), time_limit=time_limit, log=log
    )
    model, names = (export.model, Names()) if export.finished else finish(export)
    unfolded = _unfold(model) if unfold_bn else 0
    return Conversion(
        model=checked(model, "--unfold-bn") if unfolded else model,
        max_relative_difference=compare(model, export.samples),
        batch_sizes=tuple(sample.batch for sample in export.samples),
        exporter=export.exporter,
        environment=environment,
        names=names,
        normalisations=export.normalisations,
        unfolded=unfolded,
        notes=export.notes,
    )


def _of_file(path: str, inputs: Sequence[InputSpec], *, unfold_bn: bool) -> Conversion:
    if inputs:
        raise ConversionError(f"{path} says itself what it reads", fix="Leave --input out.")
    model, notes = read_onnx(path)
    return Conversion(model=model, unfolded=_unfold(model) if unfold_bn else 0, notes=notes)


def _unfold(model: onnx.ModelProto) -> int:
    added = batchnorm.unfold(model)
    if not added:
        raise ConversionError(
            "no convolution has lost a batch normalisation: each has one behind it, or no bias",
            fix="Leave --unfold-bn out.",
        )
    return added
