"""What fits a search that starts from trained weights: learning rate, frozen normalisation, warm-up, time of zeroing.

    python benchmarks/pretrained.py            # run what is missing, one line of JSON each
    python benchmarks/pretrained.py --table    # the mean over the seeds

StackedUnets of width 8 is trained plainly on 6,000 images of Fashion-MNIST for 8 epochs, then searched for 3 epochs
from those weights, by each recipe and with 3 seeds. Judged on 5,000 training images that are held out: the test images
choose nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "pretrained.jsonl"
RUNS = ROOT / "runs" / "pretrained"
DATA = "fashion-mnist?train=6000&validation=5000"
SEEDS = (0, 1, 2)
TARGETS: dict[str, dict[str, Any]] = {
    "prune": {"mode": "prune", "target": {"keep_macs": 0.5}},
    "erase": {"mode": "erase", "target": {"remove_groups": 0.5}},
}
RECIPES: dict[str, dict[str, Any]] = {
    "as from scratch": {},
    "lr/3": {"lr": 0.015},
    "lr/10": {"lr": 0.005},
    "lr/3, frozen BN": {"lr": 0.015, "freeze_bn": True},
    "lr/3, warm-up": {"lr": 0.015, "warmup_epochs": 0.3},
    "lr/3, zero at 0.3": {"lr": 0.015, "zero_at": 0.3},
    "lr/3, select at 0.02": {"lr": 0.015, "select_at": 0.02, "zero_at": 0.1},
}


def finished() -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def trained(seed: int) -> Path:
    """The network trained plainly with this seed; made where it is missing."""
    from onnx_asgnas import models
    from onnx_asgnas.finetuning import finetune

    folder = RUNS / f"plain-{seed}"
    if not (folder / "trained.onnx").exists():
        source = models.parse(f"stackedunets?width=8&seed={seed}")
        result = finetune(source, DATA, run_dir=folder, epochs=8, seed=seed, threads=1)
        assert result.after is not None
        record({"recipe": "full network", "target": "none", "seed": seed, "accuracy": result.after.accuracy})
    return folder / "trained.onnx"


def record(line: dict[str, Any]) -> None:
    """Keep a result."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def run(target: str, recipe: str, seed: int) -> None:
    """One search from the trained weights."""
    import onnx_asgnas as nas

    source = trained(seed)
    told = TARGETS[target]
    folder = RUNS / f"{target}-{recipe}-{seed}".replace("/", "_").replace(" ", "-").replace(",", "")
    goal, options = nas.Target(**told["target"]), {"epochs": 3, "seed": seed, "threads": 1, **RECIPES[recipe]}
    if (folder / "config.json").exists():
        result = nas.resume(folder)
    else:
        result = nas.search(source, DATA, goal, mode=told["mode"], run_dir=folder, **options)
    facts = result.report.to_dict()
    record(
        {
            "recipe": recipe,
            "target": target,
            "seed": seed,
            "accuracy": facts["compact"]["accuracy"],
            "loss": facts["history"][-1]["test_loss"],
            "macs": facts["kept"]["macs"],
        }
    )


def table(results: Iterable[dict[str, Any]]) -> str:
    """Mean accuracy and loss over the seeds, in Markdown."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in results:
        rows.setdefault((line["target"], line["recipe"]), []).append(line)
    text = ["| target | recipe | seeds | accuracy | spread | loss |", "|---|---|---:|---:|---:|---:|"]
    for (target, recipe), lines in sorted(rows.items()):
        accuracies = [100 * line["accuracy"] for line in lines]
        losses = [line["loss"] for line in lines if "loss" in line]
        spread = max(accuracies) - min(accuracies)
        loss = f"{statistics.mean(losses):.3f}" if losses else "–"
        text.append(
            f"| {target} | {recipe} | {len(lines)} | {statistics.mean(accuracies):.1f} | {spread:.1f} | {loss} |"
        )
    return "\n".join(text)


def main() -> None:
    """Run what is missing, or show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--target", choices=sorted(TARGETS))
    if not (given := parser.parse_args()).table:
        done = {(line["target"], line["recipe"], line["seed"]) for line in finished()}
        for target in [given.target] if given.target else TARGETS:
            for seed in SEEDS:
                for recipe in RECIPES:
                    if (target, recipe, seed) not in done:
                        run(target, recipe, seed)
    print(table(finished()))


if __name__ == "__main__":
    main()
