"""One model file of the sweep, in a process of its own: every case is cut and checked, each gives one record.

    python -m benchmarks.corpus_sweep.worker < JOB.json

A record is one line of JSON on standard output, after the mark RECORD.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.corpus_sweep import checks
from benchmarks.corpus_sweep.cases import Case
from benchmarks.corpus_sweep.feeds import feeds
from onnx_asgnas import construct
from onnx_asgnas.config import Target
from onnx_asgnas.errors import AsgnasError, ConstructError, TargetError, VerificationError

MARK = "RECORD "
ALMOST_WHOLE = "more than 99 % of the weights stay"
_NEWEST_TOLERANCE = 1e-3
_REASON_LENGTH = 400
_REASONS_KEPT = 12
_LARGEST_MESSAGE = 2_000_000_000
_CHAOS = 1e-2
"""Of the difference in float32 that in float64 is at most so much: the network amplifies rounding, the cut is right."""
_FAINTEST = 1e-9
"""A signal below this, relative to the output, is not told from the rounding of float64 to 1e-5 of it."""
_LOUDNESS = (1, 10, 100, 1000)
"""By how much inputs are larger than usual, until the outputs depend on them."""


@dataclass(kw_only=True, slots=True)
class Stages:
    """Seconds and peak memory, in megabytes, of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)
            self.memory[name] = _peak_memory()


class NewestRuntime:
    """The process that has the newest onnxruntime; it answers for one file after another."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("newest_runtime.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, model: Path, feeds: checks.Arrays, expected: checks.Arrays | Path) -> dict[str, Any]:
        """How far its outputs are from these, or from those of another model; an error too if it ended."""
        files = {"model": str(model), "expected": str(expected)}
        for name, arrays in (("feeds", feeds), ("expected", expected)):
            if not isinstance(arrays, Path):
                files[name] = str(model.with_suffix(f".{name}.npz"))
                np.savez(files[name], **arrays)  # type: ignore[arg-type]
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(files) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            return answer
        except (BrokenPipeError, json.JSONDecodeError):
            return {"error": f"the newest onnxruntime ended with {self._process.wait()}"}


class Failure(Exception):
    """A check that failed."""


class ModelSweep:
    """One model file: what every case needs of it is made once."""

    def __init__(self, path: Path, traced: dict[str, list[int]], threads: int, newest: NewestRuntime | None) -> None:
        self.path = path
        self.threads = threads
        self.newest = newest
        self.model = onnx.load(path)
        self.large = path.stat().st_size > _LARGEST_MESSAGE or path.with_name(path.name + ".data").exists()
        self._traced = traced
        self.loudness = 0
        self._listen(_LOUDNESS[0])

    def _listen(self, loudness: int) -> None:
        """Take inputs of this size, and note what the source gives for them; raises what the runtime does."""
        if loudness == self.loudness:
            return
        given, other = feeds(self.model, self._traced, loudness=loudness)
        self.source = checks.Runs(self.path, given, None, self.threads)
        self.feeds, self.other, self.loudness = given, other, loudness

    def facts(self) -> dict[str, Any]:
        """What the file holds, whatever is done with it."""
        return {"operators": len(self.model.graph.node), "floats": checks.floats(self.model)}

    def record(self, case: Case) -> dict[str, Any]:
        """Cut and check; what was found, whatever went wrong.

        With fewer channels a network's signal fades from one normalisation to the next, until its outputs hardly depend
        on its inputs and no check says much: then the inputs are made larger, and where that is not enough, what is
        left of the signal is compared in float64.
        """
        self._listen(_LOUDNESS[0])
        record = self._record(case)
        for loudness in _LOUDNESS[1:]:
            if record["status"] != "vacuous":
                break
            try:
                self._listen(loudness)
            except Exception:  # a detector that finds nothing in them does not run
                break
            record = self._record(case)
        if record["status"] != "vacuous":
            return record
        self._listen(_LOUDNESS[0])
        faint = self._record(case, faint=True)
        return faint if faint["status"] == "passed" else record

    def _record(self, case: Case, *, faint: bool = False) -> dict[str, Any]:
        stages = Stages()
        record: dict[str, Any] = self.facts()
        try:
            record |= {"status": "passed", "reason": "", "loudness": self.loudness}
            self._sweep(case, stages, record, faint=faint)
        except Failure as failure:
            record |= {"status": "failed", "reason": str(failure)[:_REASON_LENGTH]}
        except (ConstructError, VerificationError) as error:
            record |= {"status": "failed", "reason": f"{type(error).__name__}: {error.message}"[:_REASON_LENGTH]}
        except AsgnasError as error:
            record |= {"status": "refused", "reason": f"{type(error).__name__}: {error.message}"[:_REASON_LENGTH]}
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            reason = f"{type(error).__name__}: {error} ({where})"
            record |= {"status": "crashed", "reason": reason[:_REASON_LENGTH], "trace": traceback.format_exc()[-4000:]}
        return record | {"seconds": stages.seconds, "memory_mb": stages.memory}

    def _sweep(self, case: Case, stages: Stages, record: dict[str, Any], *, faint: bool) -> None:
        from onnx_asgnas.pruning import cut

        how: dict[str, Any] = {"mode": case.mode, "criterion": case.criterion, "seed": 0, "round_to": 1}
        *targets, last = targets_of(case)
        for target in targets:
            with suppress(TargetError), stages.stage("cut"):
                result = cut(str(self.path), target, **how)
                break
        else:
            with stages.stage("cut"):
                target = last
                result = cut(str(self.path), target, **how)
        record |= facts_of(result) | {"target": str(target)}
        record["floats_kept"] = checks.floats(result.compact)
        self._check_form(result.zeroed, result.compact, stages)
        with tempfile.TemporaryDirectory() as folder:
            self._check_outputs(result.zeroed, result.compact, Path(folder), stages, record)
        if faint and record["status"] == "vacuous":
            self._check_signal(result.zeroed, result.compact, stages, record)
        with stages.stage("construct again"):
            again = construct(result.compact)
        if checks.floats(again) != checks.floats(result.compact):
            raise Failure("construct on the result removes more")
        if not checks.shrunk(result.zeroed, result.compact):
            record |= {"status": "frozen", "reason": f"no weight of a dense layer became smaller{_main_reason(record)}"}
        elif checks.as_good_as_whole(record["floats"], record["floats_kept"]):
            record |= {"status": "frozen", "reason": f"{ALMOST_WHOLE}{_main_reason(record)}"}

    def _check_form(self, zeroed: onnx.ModelProto, compact: onnx.ModelProto, stages: Stages) -> None:
        with stages.stage("form"):
            faults = checks.signature_changes(self.model, compact) + checks.zeroing_faults(self.model, zeroed)
            if not self.large:
                onnx.checker.check_model(compact, full_check=True)
        if faults:
            raise Failure("; ".join(faults))

    def _check_outputs(
        self,
        zeroed: onnx.ModelProto,
        compact: onnx.ModelProto,
        folder: Path,
        stages: Stages,
        record: dict[str, Any],
    ) -> None:
        file = folder / "compact.onnx"
        onnx.save(compact, file, save_as_external_data=checks.weight_bytes(compact) > _LARGEST_MESSAGE)
        full = self._runnable(zeroed, folder / "zeroed.onnx")
        with stages.stage("run zeroed"):
            expected = checks.Runs(full, self.feeds, self.other, self.threads)
        with stages.stage("run compact"):
            try:
                got = checks.Runs(file, self.feeds, None, self.threads)
            except Exception as error:
                raise Failure(f"the compact model does not run: {error}") from error
        found = checks.compare(self.source, expected, got)
        if not (found.passed or found.half):
            with stages.stage("in float64"):
                exact = checks.difference_in_double(zeroed, compact, self.feeds)
            if checks.TOLERANCE < exact <= found.worst * _CHAOS:
                said = f"rounding decides: the outputs differ by {found.worst:.2g} in float32, {exact:.2g} in float64"
                record |= {"status": "vacuous", "reason": said}
                return
            if exact <= checks.TOLERANCE:
                record["rounding"], found = found.worst, replace(found, worst=exact)
        record |= {"difference": found.worst, "output": found.output, "moved": found.moved, "varied": found.varied}
        if not found.passed:
            raise Failure(f"output '{found.output}' differs by {found.worst:.3g}")
        if self.newest is not None:
            with stages.stage("newest runtime"):
                answer = record["newest"] = self._in_newest(self.newest, file, zeroed, got.outputs[0])
            if "error" in answer:
                raise Failure(f"the newest onnxruntime refuses it: {answer['error']}")
            if answer["difference"] > _NEWEST_TOLERANCE and "rounding" not in record:
                raise Failure(f"the newest onnxruntime gives other outputs, by {answer['difference']:.3g}")
        if found.vacuous:
            said = f"the removal moves the outputs by {found.moved:.2g}, other inputs move them by {found.varied:.2g}"
            record |= {"status": "vacuous", "reason": said}

    def _check_signal(
        self, zeroed: onnx.ModelProto, compact: onnx.ModelProto, stages: Stages, record: dict[str, Any]
    ) -> None:
        """Hold the models to the same tolerance in terms of the little that the inputs still change."""
        with stages.stage("in float64"), suppress(Exception):  # an operator that the reference has not: as it was
            apart, signal = checks.compare_signal_in_double(zeroed, compact, self.feeds[0], self.other)
            record["signal"] = signal
            if signal < _FAINTEST:  # behind some layer no unit is alive: what lies before it is compared
                apart, count = checks.compare_inside(zeroed, compact, self.feeds[0], self.other, self.threads)
                record["inside"] = count
                apart = apart if count else math.inf
            if apart <= checks.TOLERANCE:
                record |= {"status": "passed", "reason": "", "difference": apart}

    def _in_newest(
        self, newest: NewestRuntime, file: Path, zeroed: onnx.ModelProto, got: checks.Arrays
    ) -> dict[str, Any]:
        """What the newest runtime says of a compact model.

        Where it gives other outputs than this one, the zeroed model counts in it too: two versions of the runtime
        differ in some operators, such as AveragePool with ceil_mode.
        """
        answer = newest.ask(file, self.feeds[0], got)
        if answer.get("difference", 0.0) > _NEWEST_TOLERANCE:
            full = file.with_name("full.onnx")
            onnx.save(zeroed, full, save_as_external_data=checks.weight_bytes(zeroed) > _LARGEST_MESSAGE)
            answer = newest.ask(file, self.feeds[0], full) | {"runtimes_differ": answer["difference"]}
        return answer

    @staticmethod
    def _runnable(model: onnx.ModelProto, path: Path) -> onnx.ModelProto | Path:
        if checks.weight_bytes(model) <= _LARGEST_MESSAGE:
            return model
        onnx.save(model, path, save_as_external_data=True)
        return path


def targets_of(case: Case) -> list[Target]:
    """The targets of a case, of which the first that can be reached counts.

    The fraction is of every layer's channels in mode prune, of the structures in mode erase, and of the MACs in mode
    joint, there in smaller steps where residual streams keep most of a network from leaving.
    """
    if case.mode == "prune":
        return [Target(uniform=case.fraction)]
    if case.mode == "erase":
        return [Target(remove_groups=case.fraction), Target(remove_groups=1)]
    return [Target(keep_macs=1 - case.fraction / part) for part in (1, 2, 4, 16, 64)]


def facts_of(result: Any) -> dict[str, Any]:
    """What the analysis says of itself, as plain data."""
    space = result.space
    frozen: Counter[tuple[str, str]] = Counter()
    for entry in space.frozen:
        frozen[(entry.op_type, re.sub(r"'[^']*'", "…", entry.reason))] += entry.channels
    return {
        "params": space.params,
        "macs": space.macs,
        "groups": {"total": space.channel_groups.total, "free": space.channel_groups.free},
        "structures": sum(s.erasable for s in space.structures),
        "kept": {name: float(value) for name, value in dict(result.kept).items()},
        "frozen": [[*key, count] for key, count in frozen.most_common(_REASONS_KEPT)],
        "unknown": list(space.unknown)[:_REASONS_KEPT],
    }


def _main_reason(record: dict[str, Any]) -> str:
    """What the package says keeps the most channels."""
    if not record["frozen"]:
        return ""
    op_type, reason, channels = record["frozen"][0]
    return f"; {channels:,} channels: {op_type + ': ' if op_type else ''}{reason}"


def _peak_memory() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def main() -> None:
    """Read the job, write its records."""
    job = json.load(sys.stdin)
    newest = NewestRuntime(job["newest"]) if job["newest"] else None
    cases = [Case(**case) for case in job["cases"]]
    try:
        model = ModelSweep(Path(job["file"]), job["traced"], job["threads"], newest)
    except Exception as error:
        reason = f"the source does not run here: {type(error).__name__}: {error}"[:_REASON_LENGTH]
        for case in cases:
            _say(case, {"status": "not run", "reason": reason})
        return
    for case in cases:
        _say(case, model.record(case))


def _say(case: Case, record: dict[str, Any]) -> None:
    print(MARK + json.dumps(asdict(case) | record, allow_nan=True), flush=True)


if __name__ == "__main__":
    main()
