"""Half of the structures gone: H2SPG against plain training, a random valid choice, and the compact net from scratch.

    python benchmarks/first_road.py            # run what is missing, one line of JSON each, then write the tables
    python benchmarks/first_road.py --estimate # how long that will take
    python benchmarks/first_road.py --tables   # only docs/results.md

Two networks on Fashion-MNIST: a fixed balanced part of 6,000 images for 8 epochs with 3 seeds, and all 60,000 for 10
epochs once. Every run goes on from its last checkpoint when it was killed; finished ones stand in docs/results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.jsonl"
TABLES = ROOT / "docs" / "results.md"
RUNS = ROOT / "runs" / "first_road"

NETWORKS = {"StackedUnets": "stackedunets?width=8", "DemoSupNet": "demosupnet?width=13"}
PARTS = {"6k": ("fashion-mnist?train=6000", 8, (0, 1, 2)), "60k": ("fashion-mnist", 10, (0,))}
METHODS = ("plain", "h2spg", "random", "scratch")
TARGET = 0.5
RECIPE = {"batch_size": 32, "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
SECONDS = {"6k": 60, "60k": 700}
"""About what a run takes on one core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training run."""

    network: str
    part: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network}-{self.part}-{self.method}-{self.seed}".lower()


def jobs() -> list[Job]:
    """All runs, the short ones first; the compact net from scratch after the search that finds it."""
    return [
        Job(network=network, part=part, method=method, seed=seed)
        for part, (_, _, seeds) in PARTS.items()
        for seed in seeds
        for network in NETWORKS
        for method in METHODS
    ]


def finished() -> dict[str, dict[str, Any]]:
    """The results so far, by the run's name."""
    if not RESULTS.exists():
        return {}
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {line["name"]: line for line in lines}


def run(job: Job) -> dict[str, Any]:
    """Do one run in this process (on one thread); gives its line."""
    import onnx_asgnas as nas
    from onnx_asgnas import models
    from onnx_asgnas.finetuning import finetune, resume_finetune
    from onnx_asgnas.runs import versions

    data, epochs, _ = PARTS[job.part]
    source = models.parse(f"{NETWORKS[job.network]}&seed={job.seed}")
    folder = RUNS / job.name
    common: dict[str, Any] = {"epochs": epochs, "seed": job.seed, "threads": 1, **RECIPE}
    facts: dict[str, Any]
    if job.method in ("h2spg", "random"):
        score = {} if job.method == "h2spg" else {"score": "random"}
        if (folder / "config.json").exists():
            result = nas.resume(folder)
        else:
            result = nas.search(source, data, nas.Target(remove_groups=TARGET), run_dir=folder, **common, **score)
        report = result.report.to_dict()
        facts = {
            "accuracy": report["compact"]["accuracy"],
            "params": report["compact"]["params"],
            "macs": report["compact"]["macs"],
            "verified": report["verified"],
            "chosen": [entry["tensor"] for entry in report["chosen"]],
            "seconds": report["seconds"],
        }
    else:
        model = source if job.method == "plain" else reinitialised(_compact_of(job), job.seed + 1000)
        started = (folder / "config.json").exists()
        trained = resume_finetune(folder) if started else finetune(model, data, run_dir=folder, **common)
        history = trained.history
        space = nas.analyze(trained.model)
        facts = {
            "accuracy": history[-1].accuracy,
            "params": space.params,
            "macs": space.macs,
            "seconds": history[-1].seconds,
        }
    facts |= {"recipe": common, "versions": versions(), "commit": _commit()}
    return {"name": job.name, **asdict(job), **facts}


def _commit() -> str:
    """The commit that made a result; "" outside of a checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _compact_of(job: Job) -> Path:
    return RUNS / Job(network=job.network, part=job.part, method="h2spg", seed=job.seed).name / "compact.onnx"


def reinitialised(path: Path, seed: int) -> Any:
    """The same architecture with fresh He-normal weights and untouched normalisations."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    random = np.random.default_rng(seed)
    tensors = {t.name: t for t in model.graph.initializer}

    def fill(name: str, values: Any) -> None:
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    for node in model.graph.node:
        shapes = [tuple(tensors[name].dims) for name in node.input[1:] if name in tensors]
        if node.op_type == "BatchNormalization":
            for name, value in zip(node.input[1:], (1.0, 0.0, 0.0, 1.0), strict=True):
                fill(name, np.full(tuple(tensors[name].dims), value))
        elif node.op_type in ("Conv", "Gemm"):
            gain = 2.0 if node.op_type == "Conv" else 1.0
            fill(node.input[1], random.standard_normal(shapes[0]) * math.sqrt(gain / np.prod(shapes[0][1:])))
            if len(shapes) > 1:
                fill(node.input[2], np.zeros(shapes[1]))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimate", action="store_true", help="print how long the missing runs will take")
    parser.add_argument("--tables", action="store_true", help="only write docs/results.md from docs/results.jsonl")
    parser.add_argument("--latency", action="store_true", help="measure latencies again (nothing else should run)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="do only the runs with such names")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, one core each")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        (job,) = [j for j in jobs() if j.name == arguments.job]
        _append(run(job))
        return
    missing = [job for job in jobs() if job.name not in finished() and fnmatch(job.name, arguments.only)]
    estimate = sum(SECONDS[job.part] for job in missing) / arguments.workers
    print(f"{len(missing)} of {len(jobs())} runs are missing: about {estimate / 60:.0f} minutes")
    if arguments.estimate:
        return
    if not arguments.tables:
        _work(missing, arguments.workers)
    _write_tables(arguments.latency)


def _work(missing: Iterable[Job], workers: int) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    waiting, started = list(missing), time.monotonic()
    running: dict[Job, subprocess.Popen[bytes]] = {}
    while waiting or running:
        done = finished()
        for job in list(waiting):
            needs = Job(network=job.network, part=job.part, method="h2spg", seed=job.seed).name
            ready = job.method != "scratch" or needs in done
            if ready and len(running) < workers:
                waiting.remove(job)
                command = [sys.executable, __file__, "--job", job.name]
                with (RUNS / f"{job.name}.log").open("w") as log:
                    running[job] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        for job, process in list(running.items()):
            if process.poll() is not None:
                del running[job]
                state = "done" if process.returncode == 0 else f"FAILED, see {RUNS / job.name}.log"
                print(f"{(time.monotonic() - started) / 60:6.1f} min  {job.name}: {state}", flush=True)
        time.sleep(1)


def _latency(network: str) -> dict[str, Any]:
    """Median and p95 of the full and the compact net of the long run, in turn, one thread; and their paired ratio."""
    import onnx_asgnas as nas

    folder = RUNS / Job(network=network, part="60k", method="h2spg", seed=0).name
    facts = nas.benchmark(folder / "trained.onnx", folder / "compact.onnx", threads=1, seconds=5.0).to_dict()
    return {
        "name": f"{network.lower()}-latency",
        "full": facts["full"]["latency_ms"],
        "compact": facts["compact"]["latency_ms"],
        "ratio": facts["latency_ratio"],
    }


def _write_tables(measure_latency: bool) -> None:
    done = finished()
    for network in NETWORKS:
        missing = f"{network.lower()}-latency" not in done
        compact = RUNS / Job(network=network, part="60k", method="h2spg", seed=0).name / "compact.onnx"
        if compact.exists() and (missing or measure_latency):
            _append(_latency(network))
    done = finished()
    text = "\n".join([_INTRODUCTION, *(_section(network, done) for network in NETWORKS), _closing(done)])
    TABLES.write_text(text, encoding="utf-8")
    print(f"wrote {TABLES.relative_to(ROOT)}")


def _append(line: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _of(done: dict[str, dict[str, Any]], network: str, part: str, method: str) -> list[dict[str, Any]]:
    names = [j.name for j in jobs() if (j.network, j.part, j.method) == (network, part, method)]
    return [done[name] for name in names if name in done]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _standard_error(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan


def _section(network: str, done: dict[str, dict[str, Any]]) -> str:
    lines = [f"## {network} (`models:{NETWORKS[network]}`)", ""]
    for part, (data, epochs, _) in PARTS.items():
        lines += [f"`{data}`, {epochs} epochs:", ""]
        lines += ["| | test accuracy | parameters | MACs | structures at zero | seconds |", "|---|---|---|---|---|---|"]
        lines += [_row(network, part, method, done) for method in METHODS if _of(done, network, part, method)]
        lines += ["", *_verdicts(network, part, done), ""]
    latency = done.get(f"{network.lower()}-latency")
    if latency:
        lines += [
            f"Latency in onnxruntime, batch 1, one thread, paired: full {latency['full']['median']:.3f} ms (p95 "
            f"{latency['full']['p95']:.3f}), compact {latency['compact']['median']:.3f} ms (p95 "
            f"{latency['compact']['p95']:.3f}); median ratio {latency['ratio']:.2f}.",
            "",
        ]
    return "\n".join(lines)


def _row(network: str, part: str, method: str, done: dict[str, dict[str, Any]]) -> str:
    runs = _of(done, network, part, method)
    accuracies = [100 * run["accuracy"] for run in runs]
    spread = f" ± {_standard_error(accuracies):.2f}" if len(runs) > 1 else ""
    chosen = "; ".join(", ".join(run["chosen"]) for run in runs if "chosen" in run) or "–"
    return (
        f"| {_TITLES[method]} | {_mean(accuracies):.2f}{spread} | {_mean(r['params'] for r in runs):,.0f} | "
        f"{_mean(r['macs'] for r in runs) / 1e6:.2f} M | {chosen} | {_mean(r['seconds'] for r in runs):.0f} |"
    )


def _verdicts(network: str, part: str, done: dict[str, dict[str, Any]]) -> list[str]:
    found = {m: [100 * r["accuracy"] for r in _of(done, network, part, m)] for m in METHODS}
    if not all(found.values()):
        return []
    means = {method: _mean(values) for method, values in found.items()}
    checked = [r["verified"] for m in ("h2spg", "random") for r in _of(done, network, part, m)]
    worst = max(v["max_relative_difference"] for v in checked)
    lines = [f"Compact against zeroed full: the largest relative difference of {len(checked)} runs is {worst:.1e}."]
    lines.append(
        f"H2SPG {means['h2spg'] - means['random']:+.2f} points against random, "
        f"{means['h2spg'] - means['scratch']:+.2f} against from scratch, "
        f"{means['h2spg'] - means['plain']:+.2f} against the full net trained plainly."
    )
    return lines


def _closing(done: dict[str, dict[str, Any]]) -> str:
    seconds = sum(line.get("seconds", 0) for line in done.values())
    versions = next((line["versions"] for line in done.values() if "versions" in line), {})
    return (
        f"All runs together took {seconds / 60:.0f} minutes of one core each. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.\n"
    )


_TITLES = {
    "plain": "full net, trained plainly",
    "h2spg": "H2SPG, half of the structures gone",
    "random": "a random valid choice, otherwise the same",
    "scratch": "H2SPG's compact net from scratch",
}
_INTRODUCTION = """# Results

Written by `python benchmarks/first_road.py`, which does every missing run (one core each, two at once), appends a line
of JSON to docs/results.jsonl, and makes this page anew. `--estimate` says how long the missing runs take.

Fashion-MNIST; SGD with momentum 0.9, batch 32, learning rate 0.05 on a cosine, weight decay 1e-4, the same for all.
Accuracy is that of the last epoch on the 10,000 test images, in percent, mean ± standard error over the seeds. The
networks are small because two cores train them.
"""


if __name__ == "__main__":
    main()
