"""What a converter is given, and what it gives: plain data, so that another process can do its work.

A converter is a function `(source: Source) -> Export`. It loads the network, lets the framework's own exporter write
ONNX, and notes what the network gives on random inputs; all that comes behind (checks, names, comparison) is the same
for every framework, and runs where this package is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.converters.inputs import InputSpec, parse_input, sample_sizes
from onnx_asgnas.errors import ConversionError

OPSET = 20
"""The operator set to export for: what onnxruntime-training can load."""

Array: TypeAlias = NDArray[np.generic]

_MORE = 3
"""What the second batch has more than the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A source without its scheme, what it reads where the user says so, and whether its files may run code."""

    body: str
    inputs: tuple[InputSpec, ...] = ()
    trust: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Inputs by their names in the ONNX model, and what the source gives for them, output by output."""

    feeds: Mapping[str, Array]
    outputs: tuple[Array, ...]
    batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """An ONNX model as an exporter wrote it, and what is known about its source.

    `parameters` holds the source's trainable parameters by name; `normalisations` how many batch normalisations the
    source has (None: not known); `notes` what a user should know, a sentence each. A `finished` model is left as it is.
    """

    model: onnx.ModelProto
    exporter: str
    samples: tuple[Sample, ...] = ()
    parameters: Mapping[str, Array] = field(default_factory=dict)
    normalisations: int | None = None
    notes: tuple[str, ...] = ()
    finished: bool = False

    def write(self, folder: Path) -> None:
        """Write all of it to a folder."""
        onnx.save(self.model, folder / "model.onnx", save_as_external_data=True, location="weights.data")
        facts = {
            "exporter": self.exporter,
            "normalisations": self.normalisations,
            "notes": self.notes,
            "finished": self.finished,
            "parameters": list(self.parameters),
            "samples": [{"feeds": list(s.feeds), "outputs": len(s.outputs), "batch": s.batch} for s in self.samples],
        }
        (folder / "export.json").write_text(json.dumps(facts), encoding="utf-8")
        arrays = {f"p{at}": array for at, array in enumerate(self.parameters.values())}
        for at, sample in enumerate(self.samples):
            arrays |= {f"s{at}i{place}": array for place, array in enumerate(sample.feeds.values())}
            arrays |= {f"s{at}o{place}": array for place, array in enumerate(sample.outputs)}
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]  # its stub takes the names for options

    @classmethod
    def read(cls, folder: Path) -> Export:
        """What `write` has written."""
        facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            samples = tuple(
                Sample(
                    feeds={name: arrays[f"s{at}i{place}"] for place, name in enumerate(sample["feeds"])},
                    outputs=tuple(arrays[f"s{at}o{place}"] for place in range(sample["outputs"])),
                    batch=sample["batch"],
                )
                for at, sample in enumerate(facts["samples"])
            )
            parameters = {name: arrays[f"p{at}"] for at, name in enumerate(facts["parameters"])}
        return cls(
            model=onnx.load(folder / "model.onnx"),
            exporter=facts["exporter"],
            samples=samples,
            parameters=parameters,
            normalisations=facts["normalisations"],
            notes=tuple(facts["notes"]),
            finished=facts["finished"],
        )


def record(
    run: Callable[[Sequence[Array]], Sequence[Array]], inputs: Sequence[InputSpec], names: Sequence[str]
) -> tuple[Sample, ...]:
    """What the source gives on random inputs, at two batch sizes where the batch is open.

    `run` takes an array for each input; `names` are those of the inputs in the ONNX model.
    """
    sizes = sample_sizes(inputs)
    batch = {spec.batch_symbol for spec in inputs} - {None}
    generator = np.random.default_rng(1)
    samples: list[Sample] = []
    for more in (0, _MORE) if batch else (0,):
        now = {symbol: size + more if symbol in batch else size for symbol, size in sizes.items()}
        arrays = [spec.random(now, generator) for spec in inputs]
        try:
            outputs = tuple(np.asarray(output) for output in run(arrays))
        except ConversionError as problem:
            if samples:
                fix = f"It runs at a batch of {samples[0].batch}: if that is fixed, write the number in --input."
                problem.fix = fix
            raise
        size = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
        samples.append(Sample(feeds=dict(zip(names, arrays, strict=True)), outputs=outputs, batch=size))
    return tuple(samples)


def source_to_json(source: Source) -> dict[str, object]:
    """A source as plain data."""
    return {"body": source.body, "inputs": [str(spec) for spec in source.inputs], "trust": source.trust}


def source_from_json(data: Mapping[str, object]) -> Source:
    """What `source_to_json` has made."""
    inputs = data["inputs"]
    if not isinstance(inputs, list):
        raise TypeError("inputs is a list of texts")
    return Source(body=str(data["body"]), inputs=tuple(map(parse_input, inputs)), trust=bool(data["trust"]))
