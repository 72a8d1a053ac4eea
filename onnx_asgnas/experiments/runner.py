"""Do the runs of an experiment one after another, each from its last checkpoint where it was stopped."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas import models
from onnx_asgnas.config import Target
from onnx_asgnas.errors import InputError
from onnx_asgnas.experiments.recipe import H2SPG, PLAIN, SCRATCH, Experiment, options_set
from onnx_asgnas.finetuning import finetune, resume_finetune
from onnx_asgnas.graph import load_model
from onnx_asgnas.pipeline import resume, search
from onnx_asgnas.report import RunReport, curves_of, fates_of
from onnx_asgnas.runs import Listener, RunDirectory, data_for, versions
from onnx_asgnas.space import analyze
from onnx_asgnas.space.gates import add_gates
from onnx_asgnas.specs import parse_spec
from onnx_asgnas.training.scores import RedundancyScore

_SCRATCH_SEED = 1000
"""What is added to the seed for new weights, which must not be those that the full network began with."""

_MOST_NORMS, _EVERY = 12, 2
"""Lines keep the norms of at most so many groups, and every second sample."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One training of an experiment."""

    experiment: Experiment
    method: str
    seed: int

    @property
    def name(self) -> str:
        """What it is called in the results, and its folder."""
        return f"{self.experiment.name}-{self.method}-{self.seed}"

    @property
    def needs(self) -> Run | None:
        """The run that must be done before: a network trained from new weights has to be found first."""
        return Run(self.experiment, H2SPG, self.seed) if self.method == SCRATCH else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Runner:
    """Where runs are done and kept: each in a folder of its own, a line of JSON in `results` once it is finished."""

    folder: Path
    results: Path
    data_dir: str | None = None
    threads: int | None = None

    def runs(self, experiment: Experiment) -> list[Run]:
        """All runs, seed by seed, each after what it needs."""
        order = sorted(experiment.all_methods, key=lambda method: method == SCRATCH)
        seeds = dict.fromkeys(seed for method in order for seed in experiment.seeds_of(method))
        return [Run(experiment, m, seed) for seed in seeds for m in order if seed in experiment.seeds_of(m)]

    def finished(self) -> dict[str, Line]:
        """The lines of the finished runs by name; raises InputError for a file that holds something else."""
        if not self.results.exists():
            return {}
        try:
            lines = [json.loads(line) for line in self.results.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as problem:
            raise InputError(f"{self.results} holds no results: {problem}", fix="Give another file.") from None
        for line in lines:
            if not isinstance(line, dict) or not line.keys() >= {"name", "experiment", "method", "seconds"}:
                raise InputError(
                    f"{self.results} holds no results: {json.dumps(line):.60} is no line of a run",
                    fix="Give another file.",
                )
        return {line["name"]: line for line in lines}

    def missing(self, experiment: Experiment) -> list[Run]:
        """The runs that are not finished, at least not with the network, target and options that they have now."""
        done = self.finished()
        return [
            run for run in self.runs(experiment) if run.name not in done or experiment.changed_since(done[run.name])
        ]

    def estimate(self, runs: Iterable[Run]) -> float:
        """About how many seconds these runs take: as like ones did that are finished, else as their files say."""
        done: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for line in self.finished().values():
            took = float(line.get("wall") or line["seconds"])
            done[line["experiment"], line["method"]].append(took)
        return sum(
            statistics.fmean(done.get((run.experiment.name, run.method), [run.experiment.seconds])) for run in runs
        )

    def do(self, run: Run, on_event: Listener | None = None) -> Line:
        """One run, from its last checkpoint if it was begun; its line is appended to the results, and given.

        `seconds` is the training alone, `wall` all of the run (of one that was interrupted what came last).
        """
        began = time.monotonic()
        self._must_fit(run)
        facts = self._train(run, on_event) if run.method in (PLAIN, SCRATCH) else self._search(run, on_event)
        line = {
            "name": run.name,
            "experiment": run.experiment.name,
            "method": run.method,
            "seed": run.seed,
            "model": run.experiment.model,
            "target": str(run.experiment.target_of(run.method)),
            **facts,
            "wall": round(max(time.monotonic() - began, facts["seconds"]), 1),
            "versions": versions(),
        }
        self.results.parent.mkdir(parents=True, exist_ok=True)
        with self.results.open("ab", buffering=0) as file:  # in one piece: several processes may write to it
            file.write((json.dumps(line) + "\n").encode())
        return line

    def _must_fit(self, run: Run) -> None:
        """Raise InputError where the run was begun with another network, data, target or options than it has now."""
        place = self.place(run)
        if not place.config.exists():
            return
        begun = options_set(json.loads(place.config.read_text(encoding="utf-8")))
        line: Line = {"method": run.method, "config": begun}
        if "target" in begun:
            line["target"] = str(Target(**begun["target"]))
        changed = run.experiment.changed_since(line)
        if changed:
            told = f"another option ({', '.join(f'{name} {value}' for name, value in changed.items())})"
        elif place.source.exists() and load_model(place.source) != self._begins_with(run):
            told = "another network"
        else:
            return
        raise InputError(
            f"{run.name} was begun with {told}",
            fix=f"Remove {place.path}, or give another folder as -o.",
            path=str(place.path),
        )

    def _search(self, run: Run, on_event: Listener | None) -> Line:
        place = self.place(run)
        if place.config.exists():
            result = resume(place.path, on_event=on_event)
        else:
            result = search(
                self._model(run),
                run.experiment.data_in(self.data_dir),
                run.experiment.target_of(run.method),
                run_dir=place.path,
                on_event=on_event,
                **self._options(run),
            )
        report = result.report.to_dict()
        full, compact = report["full"], report["compact"]
        latencies = {name: model["latency_ms"] for name, model in (("full", full), ("compact", compact))}
        return {
            "accuracy": compact["accuracy"],
            "params": compact["params"],
            "macs": compact["macs"],
            "verified": report["verified"],
            "chosen": [entry["tensor"] for entry in report["chosen"]],
            "valid": not any(fate["chosen"] and not fate["removed"] for fate in report["structures"]),
            "valid_unchecked": valid_without_check(result.report),
            "norms": norms_of(result.report),
            "latency_ratio": report.get("latency_ratio"),
            "latency_ms": latencies,
            "seconds": report["seconds"],
            "config": options_set(report["config"]),
        }

    def _train(self, run: Run, on_event: Listener | None) -> Line:
        place = self.place(run)
        data = run.experiment.data_in(self.data_dir)
        if place.config.exists():
            result = resume_finetune(place.path, on_event=on_event)
        else:
            result = finetune(self._model(run), data, run_dir=place.path, on_event=on_event, **self._options(run))
        space = analyze(result.model)
        return {
            "accuracy": None if result.after is None else result.after.accuracy,
            "params": space.params,
            "macs": space.macs,
            "seconds": result.history[-1].seconds,
            "config": options_set(result.to_dict()["config"]),
        }

    def _options(self, run: Run) -> dict[str, Any]:
        return {**run.experiment.options_of(run.method), "seed": run.seed, "threads": self.threads}

    def _begins_with(self, run: Run) -> onnx.ModelProto:
        """What the folder of a run holds as its source."""
        model = self._model(run)
        return add_gates(model) if self._options(run).get("gates") else model

    def _model(self, run: Run) -> onnx.ModelProto:
        """The network with weights by the run's seed, in the shape that the data has."""
        if run.method == SCRATCH:
            return self._from_scratch(run)
        spec = parse_spec(run.experiment.model, InputError)
        model: onnx.ModelProto = models.build(spec.name, **{**spec.arguments, "seed": run.seed})
        data_for(model, run.experiment.data_in(self.data_dir))  # what does not fit is told before anything is written
        return model

    def _from_scratch(self, run: Run) -> onnx.ModelProto:
        assert run.needs is not None
        found = self.place(run.needs).compact
        if not found.exists():
            raise InputError(
                f"{run.name} needs the network that {run.needs.name} finds",
                fix="Do that run first (--only leaves it out).",
            )
        return reinitialised(load_model(found), run.seed + _SCRATCH_SEED)

    def place(self, run: Run) -> RunDirectory:
        """Where a run is done."""
        return RunDirectory(self.folder / re.sub(r"[^\w.=-]+", "_", run.name))


def valid_without_check(report: RunReport) -> bool | None:
    """Would the network be valid if the hierarchy had not been asked: the most redundant structures, up to the target?

    None where that cannot be told afterwards: for channels, and for scores that depend on what is chosen already.
    """
    config, space = report.config, report.space
    score = RedundancyScore(config.score)
    if config.mode != "erase" or score.reads_loss:
        return None
    known = {**report.redundancy, **report.chosen}
    redundancy = np.array([known[structure.tensor] for structure in space.candidates])
    chosen = space.choose(lambda _: redundancy, config.target, hierarchy=False).chosen
    fates = fates_of(space, {space.candidates[at].tensor for at in chosen}, {})
    return all(fate.removed for fate in fates if fate.chosen)


def norms_of(report: RunReport) -> dict[str, Any] | None:
    """The norms of the groups over the run, where the groups are few: group names, steps, phases, and a row each."""
    curves = curves_of(report.events, report.space)
    norms = curves["norms"]
    if norms is None or len(norms["groups"]) > _MOST_NORMS:
        return None
    values = [[float(f"{value:.3g}") for value in row[::_EVERY]] for row in norms["values"]]
    steps, total = norms["step"][::_EVERY], curves["total_steps"]
    return {"groups": norms["groups"], "step": steps, "total": total, "phases": curves["phases"], "values": values}


def reinitialised(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same architecture with new weights, as `models` draws them: He-normal, normalisations as the identity.

    Of what is computed at once from others (a constant that surgery folded) nothing changes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    random = np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}

    def fill(name: str, values: np.ndarray) -> None:
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    for node in result.graph.node:
        own = [name for name in node.input[1:] if name in tensors]
        if node.op_type == "BatchNormalization":
            for name, value in zip(own, (1.0, 0.0, 0.0, 1.0), strict=True):
                fill(name, np.full(tuple(tensors[name].dims), value))
        elif node.op_type in ("Conv", "Gemm") and own:
            shape = tuple(tensors[own[0]].dims)
            gain = 2.0 if node.op_type == "Conv" else 1.0
            fill(own[0], random.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:])))
            if len(own) > 1:
                fill(own[1], np.zeros(tuple(tensors[own[1]].dims)))
    return result
