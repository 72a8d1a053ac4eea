"""`prune`: a smaller model by its weights alone, without training and without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import (
    Debug,
    Json,
    KeepMacs,
    KeepParams,
    MinChannels,
    Mode,
    Protect,
    RemoveGroups,
    RoundTo,
    Seed,
    Strict,
    TaskLoss,
    TaskMetrics,
    Threads,
    Uniform,
    one_of,
    targets,
)
from onnx_asgnas.cli.screen import draw_comparison, draw_table, print_json, say
from onnx_asgnas.config import Criterion, Target

if TYPE_CHECKING:
    import onnx

    from onnx_asgnas.evaluation import Benchmark, Verification
    from onnx_asgnas.pruning import Pruned
    from onnx_asgnas.report.curve import Curve
    from onnx_asgnas.space import SearchSpace
    from onnx_asgnas.training.data import Split
    from onnx_asgnas.training.metrics import Judge


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where the compact model goes; of a list, FILE-0.5.onnx …"),
    ],
    keep_macs: KeepMacs = None,
    keep_params: KeepParams = None,
    uniform: Uniform = None,
    remove_groups: RemoveGroups = None,
    mode: Mode = "prune",
    criterion: Annotated[
        str,
        typer.Option(
            callback=one_of(*get_args(Criterion)),
            help="What leaves first: the least magnitude (norm), mean-magnitude (norm by size), or random.",
        ),
    ] = "magnitude",
    round_to: RoundTo = 1,
    min_channels: MinChannels = 1,
    protect: Protect = [],  # noqa: B006
    zeroed: Annotated[
        Path | None,
        typer.Option("--zeroed", metavar="FILE", help="Keep the full model with what was removed at zero too."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Measure metrics on its test part: fashion-mnist-mini, npz:FILE, …")
    ] = None,
    loss: TaskLoss = "cross_entropy",
    metrics: TaskMetrics = "",
    curve: Annotated[
        Path | None, typer.Option("--curve", metavar="FILE.svg", help="Of a list of targets, a picture of the curve.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="A page that shows what was removed, and what it saves."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time for the latency of each model; 0 leaves latency out.")
    ] = 2.0,
    strict: Strict = False,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model smaller by its weights alone: no training, no data. The result is checked against the full model.

        onnx-asgnas prune resnet50.onnx --keep-macs 0.5 -o compact.onnx

        onnx-asgnas prune resnet50.onnx --uniform 0.5 --round-to 8 --protect "op:Gemm" -o compact.onnx

        onnx-asgnas prune resnet50.onnx --keep-macs 0.3,0.5,0.7 -o compact.onnx     # compact-0.3.onnx …, one table

    What leaves is chosen over the whole network by --criterion, with --uniform layer by layer. Train the result
    further, or let `onnx-asgnas search` choose while it trains. The exit code is 1 if a check fails.
    """
    from onnx_asgnas.report.curve import require_matplotlib

    wanted = targets(remove_groups=remove_groups, keep_params=keep_params, keep_macs=keep_macs, uniform=uniform)
    _check_curve(curve, wanted)
    if page is not None and len(wanted) > 1:
        raise typer.BadParameter("the page shows one target, not a list", param_hint="--html")
    if curve is not None:
        require_matplotlib()
    job = _Job(
        space=_space(model, mode, protect, strict),
        options={"criterion": criterion, "round_to": round_to, "min_channels": min_channels, "seed": seed},
        zeroed=zeroed,
        measure={"seconds": seconds or None, "threads": threads, "seed": seed},
        data=data,
        task=(loss, metrics),
    )
    if len(wanted) == 1:
        job.single(wanted[0], output, page, as_json)
    elif not job.several(wanted, output, curve, as_json):
        raise typer.Exit(1)


_SLOW = 0.15
"""How much more of the latency than of the multiply-accumulates a compact model keeps before it is worth a word."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A model that was analysed once, and what is to be done for each target."""

    space: SearchSpace
    options: dict[str, Any]
    zeroed: Path | None
    measure: dict[str, Any]
    data: str | None
    task: tuple[str, str]

    def single(self, target: Target, output: Path, page: Path | None, as_json: bool) -> None:
        """Cut for one target, write and show it; raises VerificationError, and writes nothing, if the check fails."""
        found, verification = self._cut(target, output, self.zeroed)
        verification.require()
        measured = self._measured([found.compact], verification)
        if page is not None:
            self._write_page(page, target, found, measured)
        if as_json:
            print_json(measured.to_dict())
        else:
            draw_comparison(measured.to_dict())
            self._advise(measured)
            say(f"\ncompact model: {output}" + ("" if self.zeroed is None else f"\nzeroed model:  {self.zeroed}"))
            if page is not None:
                say(f"page:          {page}")

    def several(self, wanted: list[Target], output: Path, picture: Path | None, as_json: bool) -> bool:
        """Cut for each target, write and show all in one table; whether every check passed."""
        found = self._curve(wanted, output)
        if picture is not None:
            found.draw(picture)
        if as_json:
            print_json(found.to_dict())
        else:
            header, *rows = found.rows()
            say()
            draw_table("", header, rows, bars=1)
            self._advise(found.comparison)
            say()
            for target, file, verification in zip(wanted, found.files, found.verifications, strict=True):
                say(
                    str(file) if verification.passed else f"{target} is not written: {escape(verification.explanation)}"
                )
        return found.passed

    def _advise(self, measured: Benchmark) -> None:
        """Say what makes a network fast that is smaller and not faster."""
        pairs = [(model.latency_ms, measured.kept_by(model).macs) for model in measured.models[1:]]
        slow = any(latency is not None and latency.ratio > macs + _SLOW for latency, macs in pairs)
        if slow and self.options["round_to"] == 1:
            say("\nslower than its MACs promise: onnxruntime likes widths that are multiples of 8, try --round-to 8")

    def _curve(self, wanted: list[Target], output: Path) -> Curve:
        from onnx_asgnas.report.curve import Curve

        files = tuple(_numbered(output, target) for target in wanted)
        models, verifications = [], []
        for target, file in zip(wanted, files, strict=True):
            zeroed = None if self.zeroed is None else _numbered(self.zeroed, target)
            found, verification = self._cut(target, file, zeroed)
            models.append(found.compact)
            verifications.append(verification)
        return Curve(
            targets=tuple(wanted),
            files=files,
            comparison=self._measured(models, None),
            verifications=tuple(verifications),
        )

    def _cut(self, target: Target, output: Path, zeroed: Path | None) -> tuple[Pruned, Verification]:
        from onnx_asgnas.graph import save_model
        from onnx_asgnas.pruning import cut

        found = cut(self.space, target, **self.options)
        verification = found.verify(seed=self.options["seed"])
        if verification.passed:
            save_model(found.compact, output)
            if zeroed is not None:
                save_model(found.zeroed, zeroed)
        return found, verification

    def _write_page(self, page: Path, target: Target, found: Pruned, measured: Benchmark) -> None:
        from onnx_asgnas.graph import TraceGraph, write_atomically
        from onnx_asgnas.pruning import redundancy_of
        from onnx_asgnas.report import PruneReport, channel_fates, operator_times, run_page

        space, verification = self.space, measured.verification
        assert verification is not None
        scores = redundancy_of(space, self.options["criterion"], self.options["seed"])(())
        redundancy = {s.tensor: float(score) for s, score in zip(space.candidates, scores, strict=False)}
        chosen = [space.candidates[at].tensor for at in found.selection.chosen if at < len(space.candidates)]
        report = PruneReport(
            space=space,
            chosen={tensor: redundancy[tensor] for tensor in chosen},
            redundancy=redundancy,
            comparison=measured,
            verification=verification,
            channels=channel_fates(space, found.compact),
            left=frozenset(name for node in found.compact.graph.node for name in node.output),
            operator_times=operator_times(
                [space.parts.graph, TraceGraph.of(found.compact)], threads=self.measure["threads"]
            ),
            target=target,
            options=self.options,
        )
        write_atomically(page, run_page(report).encode())

    def _measured(self, models: list[onnx.ModelProto], verification: Verification | None) -> Benchmark:
        from onnx_asgnas.evaluation import benchmark

        graph = self.space.parts.graph
        judge = self._judge()
        return benchmark(graph, *models, verification=verification, split=self._split(), judge=judge, **self.measure)

    def _judge(self) -> Callable[[], Judge] | None:
        if self.data is None:
            return None
        from onnx_asgnas.runs import judge_for

        return judge_for(self.space.parts.graph, *self.task)

    def _split(self) -> Split | None:
        if self.data is None:
            return None
        from onnx_asgnas.runs import data_for

        dataset = data_for(self.space.parts.graph, self.data, self.task[0])
        return dataset.test or dataset.train


def _space(model: Path, mode: str, protect: list[str], strict: bool) -> SearchSpace:
    from onnx_asgnas.space import analyze

    return analyze(model, mode=mode, protect=protect, strict=strict)  # type: ignore[arg-type]


def _check_curve(curve: Path | None, wanted: list[Target]) -> None:
    if curve is not None and len(wanted) == 1:
        raise typer.BadParameter("a curve needs a list of targets, as --keep-macs 0.3,0.5,0.7", param_hint="--curve")
    if len(set(wanted)) < len(wanted):
        raise typer.BadParameter("a target is given twice")


def _numbered(path: Path, target: Target) -> Path:
    """The file of one target of a list: compact-0.3.onnx."""
    value = str(target).partition("=")[2]
    return path.with_name(f"{path.stem}-{value}{path.suffix or '.onnx'}")
