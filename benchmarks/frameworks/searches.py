"""The same short search of each network from each framework's model, with several seeds."""

from __future__ import annotations

from typing import Any

from benchmarks.frameworks.contenders import CONTROL, Files, Network
from onnx_asgnas.pipeline import resume, search


def run(files: Files, network: Network, contender: str, seed: int) -> dict[str, Any]:
    """One search, from its last checkpoint where it was begun; what came of it."""
    frameworks = [] if contender == CONTROL else [contender]
    model, data = files.contenders(network, frameworks, seed)[contender]
    folder = files.folder / "searches" / f"{network.name}-{contender.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (folder / "config.json").exists():
        result = resume(folder)
    else:
        options: dict[str, Any] = {"mode": network.mode, "epochs": network.epochs, "seed": seed, "threads": 1}
        result = search(model, f"npz:{data}", network.target, run_dir=folder, **options)
    facts = result.report.to_dict()
    return {
        "accuracy": facts["compact"]["accuracy"],
        "loss": facts["history"][-1]["test_loss"],
        "params": facts["compact"]["params"],
        "macs": facts["compact"]["macs"],
        "bytes": facts["compact"]["bytes"],
        "kept": facts["kept"],
        "difference": facts["verified"]["max_relative_difference"],
        "latency_ratio": facts["latency_ratio"],
        "seconds": facts["seconds"],
    }
