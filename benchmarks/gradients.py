"""One step of whole networks: the gradient of each engine, and of PyTorch itself, against PyTorch in float64.

    CORPUS/exporters/bin/python benchmarks/gradients.py --make FOLDER    # networks, inputs, and PyTorch's gradients
    python benchmarks/gradients.py FOLDER [--docs docs/gradients.md]     # the engines on the exported networks

Batch 2, small images, distinct random weights. Normalisation by batches is in training form, dropout off. The loss is a
sum of the outputs with random weights. An error is the norm of the difference of all gradients, over the norm of those
in float64; ReLU and batch normalisation at such a batch make any float32 noisy, PyTorch's own too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

NETWORKS = {
    "resnet50": 64,
    "densenet121": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
    "vit_b_16": 224,
    "shufflenet_v2_x1_0": 64,
    "deeplabv3_mobilenet_v3_large": 64,
    "hf_bert": 0,
    "hf_gpt2": 0,
    "hf_llama_grouped_queries": 0,
    "hf_t5": 0,
    "hf_whisper": 0,
}
"""Names in the corpus, with the size of their images."""

TIMES = 3
"""How much larger than PyTorch's own float32 error that of an engine may be."""


def make(folder: Path, names: Sequence[str]) -> None:
    """Export each network, and keep the gradients of PyTorch in both precisions."""
    import torch

    from tools.corpus.entry import Example
    from tools.corpus.export_one import _dynamo
    from tools.corpus.models import entry_of
    from tools.corpus.weights import randomise

    warnings.simplefilter("ignore")
    torch.backends.mha.set_fastpath_enabled(False)
    for name in names:
        if Path(folder, f"{name}.npz").exists():
            continue
        torch.manual_seed(0)
        entry = entry_of(name)
        module, example = entry.build("eager").eval(), entry.example()
        if NETWORKS[name]:
            image = {n: torch.randn(2, 3, NETWORKS[name], NETWORKS[name]) for n in example.inputs}
            example = Example(inputs=image, axes=example.axes)
        randomise(module, dict(example.inputs), seed=len(name))
        try:
            _dynamo(module, example, Path(folder, f"{name}.onnx"))
        except Exception as problem:  # whatever the exporter raises
            print(name, "is not exported:", str(problem).splitlines()[0], flush=True)
            continue
        for inner in module.modules():
            if isinstance(inner, torch.nn.modules.batchnorm._BatchNorm):
                inner.train()
        kept = {f"input:{n}": value.numpy() for n, value in example.inputs.items()}
        kept |= {f"value:{n}": p.detach().numpy().copy() for n, p in module.named_parameters()}
        for kind in (torch.float32, torch.float64):
            for n, gradient in _gradients_of(module.to(kind), dict(example.inputs), kind).items():
                kept[f"{kind}:{n}".replace("torch.", "")] = gradient
        np.savez(Path(folder, f"{name}.npz"), **kept)
        print(name, "made", flush=True)


def _gradients_of(module: Any, inputs: dict[str, Any], kind: Any) -> dict[str, np.ndarray]:
    import torch

    given = {n: value.to(kind) if value.is_floating_point() else value for n, value in inputs.items()}
    parameters = {n: p.requires_grad_() for n, p in module.named_parameters()}
    outputs = [leaf for leaf in torch.utils._pytree.tree_leaves(module(**given)) if isinstance(leaf, torch.Tensor)]
    loss = _loss(outputs)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: g.numpy() for n, g in zip(parameters, found, strict=True) if g is not None}


def _loss(outputs: Sequence[Any]) -> Any:
    """A weighted sum of all float outputs; the weights are the same in every run."""
    import torch

    generator = np.random.default_rng(0)
    total: Any = 0.0
    for output in outputs:
        if output.is_floating_point():
            weight = torch.from_numpy(generator.normal(size=tuple(output.shape)))
            total = total + (output * weight.to(output.dtype)).sum()
    return total


def measure(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The errors of each engine that is installed, network by network."""
    import torch

    from onnx_asgnas import OnnxModule
    from onnx_asgnas.training.engines import engine_names

    torch.set_num_threads(1)
    for name in names:
        if not Path(folder, f"{name}.npz").exists():
            continue
        kept = dict(np.load(Path(folder, f"{name}.npz")))
        inputs = {n.removeprefix("input:"): torch.from_numpy(v) for n, v in kept.items() if n.startswith("input:")}
        wanted = {n.removeprefix("float64:"): v for n, v in kept.items() if n.startswith("float64:")}
        mine = {n.removeprefix("float32:"): v for n, v in kept.items() if n.startswith("float32:")}
        row: dict[str, Any] = {"network": name, "pytorch": _error(mine, wanted)}
        for engine in (name for name in engine_names() if name != "auto"):
            start = time.perf_counter()
            module = OnnxModule(str(Path(folder, f"{name}.onnx")), engine)
            outputs = module.train()(**inputs)
            loss = _loss(outputs if isinstance(outputs, tuple) else [outputs])
            loss.backward()
            found = _by_source(module, {n.removeprefix("value:"): v for n, v in kept.items() if n.startswith("value:")})
            row[engine] = _error(found, {n: g for n, g in wanted.items() if n in found})
            row["compared"] = sum(wanted[n].size for n in found if n in wanted) / sum(g.size for g in wanted.values())
            row[f"{engine} seconds"] = round(time.perf_counter() - start, 1)
        yield row


def _by_source(module: Any, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients under the names of the source: parameters are told by name, else by value (exporters transpose)."""
    left = dict(values)
    found = {}
    for name, parameter in module.named_parameters():
        mine = parameter.detach().numpy()
        for source in [name, *left]:
            if source not in left:
                continue
            if left[source].shape == mine.shape and np.array_equal(left[source], mine):
                gradient = parameter.grad
            elif mine.ndim == 2 and left[source].shape == mine.T.shape and np.array_equal(left[source], mine.T):
                gradient = None if parameter.grad is None else parameter.grad.T
            else:
                continue
            if gradient is not None:
                found[source] = gradient.numpy()
            del left[source]
            break
    return found


def _error(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The norm of the difference over the norm."""
    difference = sum(float(np.square(found[n].astype(np.float64) - g).sum()) for n, g in wanted.items())
    return float(np.sqrt(difference / sum(float(np.square(g).sum()) for g in wanted.values())))


_HEAD = """# Gradients of whole networks

Made by `python benchmarks/gradients.py`. One step at batch 2 on small images or 16 tokens, with distinct random
weights; batch normalisation in training form, dropout off. The error of a gradient is the norm of its difference from
PyTorch's in float64, over all parameters, divided by the norm of that; where ReLU meets a batch of two, an error of a
percent is what float32 gives. *Compared*: the share of the gradient's entries that are found again in the exported
network. An engine is right where its error is at most {times} times that of PyTorch's own float32 step, or below 1e-6.

"""


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table as a page."""
    engines = [name for name in ("ort", "torch") if any(name in row for row in rows)]
    head = ["Network", "PyTorch float32", *engines, "Compared", "Right"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        bound = max(TIMES * row["pytorch"], 1e-6)
        right = all(row[name] <= bound for name in engines)
        errors = [f"{row[name]:.1e}" for name in ("pytorch", *engines)]
        lines.append([row["network"], *errors, f"{row['compared']:.1%}", "yes" if right else "no"])
    return _HEAD.format(times=TIMES) + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    """Make the networks, or measure on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true", help="export, in an environment that has the sources")
    parser.add_argument("--docs", type=Path, help="write the page here")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), help="networks")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.make:
        make(options.folder, options.only)
        return
    rows = []
    for row in measure(options.folder, options.only):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if options.docs:
        options.docs.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
