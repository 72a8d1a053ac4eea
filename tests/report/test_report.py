from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.errors import AsgnasError, RunDirectoryError, SpaceError
from onnx_asgnas.evaluation import Benchmark, Latency, ModelFacts, Verification, profile
from onnx_asgnas.models import build
from onnx_asgnas.report import Fate, RunReport, comparison_rows, fates_of, read_report, write_report
from onnx_asgnas.report.markdown import _code, _quoted, _value, markdown
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct

PAPERS_CHOICE = ("resize19", "resize56", "resize70", "bn75")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return analyze(build("stackedunets", width=8))


def passed(**facts: Any) -> Verification:
    values: dict[str, Any] = {
        "passed": True,
        "max_relative_difference": 3.1e-7,
        "tolerance": 1e-5,
        "moved": 0.53,
        "worst_output": "linear79",
        "first_tensor": None,
        "reason": "",
        "outputs": {"linear79": 3.1e-7},
        "runs": ("made-up inputs (batch 1)", "made-up inputs (batch 3)", "the given inputs"),
        "remarks": (),
    }
    return Verification(**(values | facts))


def epochs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": at + 1,
            "phase": "warm-up" if at < 1 else "hybrid" if at < 3 else "converge",
            "loss": 1 / (at + 1),
            "accuracy": 0.5 + 0.3 * at / count,
            "groups_at_zero": min(at, 4),
            "lr": 0.1,
            "seconds": 12.5 * (at + 1),
        }
        for at in range(count)
    ]


def report(space: SearchSpace, **facts: Any) -> RunReport:
    measured = ModelFacts(
        params=12610, macs=2_558_096, bytes=61202, latency_ms=Latency(median=1, p95=2, runs=9, ratio=1)
    )
    small = replace(measured, params=4890, macs=1_044_368, latency_ms=Latency(median=0.5, p95=1, runs=9, ratio=0.45))
    values: dict[str, Any] = {
        "config": SearchConfig(data="fashion-mnist-mini", target=Target(remove_groups=4), seed=7),
        "space": space,
        "chosen": {tensor: 0.25 * at for at, tensor in enumerate(PAPERS_CHOICE)},
        "redundancy": {"bn38": -1.5},
        "history": epochs(8),
        "comparison": Benchmark(models=(replace(measured, accuracy=0.83), replace(small, accuracy=0.83))),
        "verification": passed(),
        "seconds": 100.0,
        "versions": {"onnx": "1.23.2"},
    }
    return RunReport(**(values | facts))


def by_tensor(fates: tuple[Fate, ...]) -> dict[str, Fate]:
    return {fate.structure.tensor: fate for fate in fates}


# What became of each structure


def test_the_fates_of_the_papers_choice(space: SearchSpace) -> None:
    fates = by_tensor(report(space).fates())
    gone = {tensor for tensor, fate in fates.items() if fate.removed}
    assert gone == {"resize19", "resize56", "resize61", "resize70", "bn75"}
    assert {tensor for tensor, fate in fates.items() if fate.chosen} == set(PAPERS_CHOICE)
    assert fates["bn75"].reason == "chosen" and fates["resize19"].reason == "chosen"
    assert fates["resize56"].reason == "chosen, and dead without 'bn75' anyway"
    assert fates["resize61"].reason == "dead without 'bn75'"
    assert fates["bn38"].reason == "with the others gone, the network needs it"
    assert fates["resize24"].reason == "the target was met without it"
    assert fates["bn38"].redundancy == -1.5 and fates["resize70"].redundancy == 0.5
    assert fates["resize24"].redundancy is None


def test_what_is_gone_is_what_construct_removes(space: SearchSpace) -> None:
    """Whatever is chosen, even what would cut the network through."""
    random = np.random.default_rng(0)
    tensors = [candidate.tensor for candidate in space.candidates]
    for _ in range(12):
        chosen = {tensor for tensor in tensors if random.random() < 0.5}
        model = build("stackedunets", width=8)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        for group in space.groups:
            if group.name in chosen:
                for piece in group.slices:
                    zero = np.zeros(weights[piece.initializer].dims, np.float32)
                    weights[piece.initializer].CopyFrom(onnx.numpy_helper.from_array(zero, piece.initializer))
        left = {name for node in construct(model, space).graph.node for name in node.output}
        fates = fates_of(space, chosen, {})
        assert {fate.structure.tensor for fate in fates if not fate.removed} == left & by_tensor(fates).keys()
        assert all(fate.reason for fate in fates)


def test_both_chosen_of_which_one_must_stay(space: SearchSpace) -> None:
    fates = by_tensor(fates_of(space, {"bn38", "bn75"}, {}))
    kept = [fates[tensor] for tensor in ("bn38", "bn75") if not fates[tensor].removed]
    assert [fate.reason for fate in kept] == ["it is at zero, but the network needs it"]


def test_a_part_of_what_was_chosen_would_not_be_valid() -> None:
    space = analyze(build("superresnet", width=2, depth=10, in_channels=1, size=28))
    block = {f"stage0.block0.first.k{size}.bn" for size in (3, 5, 7)}  # a map of constants is left of the block
    others = {"stage3.block0.first.k3.bn", "stage3.block0.first.k5.bn"}  # they hold more than the map
    alone, together = (by_tensor(fates_of(space, chosen, {})) for chosen in (block, block | others))
    assert sum(alone[tensor].removed for tensor in block) == 2
    assert {tensor for tensor, fate in together.items() if fate.chosen and fate.removed} == block | others
    assert together["stage0.block0.second.k3.bn"].reason == "dead without the others"


def test_a_protected_structure_says_so() -> None:
    space = analyze(build("stackedunets", width=8), protect=["bn38"])
    assert by_tensor(fates_of(space, (), {}))["bn38"].reason == "protected by 'bn38'"


def test_a_space_without_its_model(space: SearchSpace) -> None:
    unbound = SearchSpace.from_json(space.to_json())
    with pytest.raises(SpaceError):
        report(unbound).fates()
    assert report(unbound).name == "network" and report(space).name == "stackedunets"


# report.json


def test_the_report_comes_back_as_it_was_written(space: SearchSpace, tmp_path: Path) -> None:
    facts = report(space)
    write_report(tmp_path, facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    read = read_report(tmp_path)
    assert read == json.loads(json.dumps(facts.to_dict()))
    assert read["kept"] == {"params": 4890 / 12610, "macs": 1_044_368 / 2_558_096}
    assert read["verified"]["passed"] is True and read["verified"]["max_relative_difference"] == 3.1e-7
    assert read["chosen"][3] == {"tensor": "bn75", "redundancy": 0.75}
    assert SearchConfig.from_json(json.dumps(read["config"])) == facts.config
    assert read["seed"] == 7 and read["versions"] == {"onnx": "1.23.2"} and len(read["history"]) == 8
    assert [s["tensor"] for s in read["structures"]] == [s.tensor for s in space.structures]
    assert comparison_rows(read) == comparison_rows(facts.comparison.to_dict())
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == markdown(facts)


def test_json_has_no_nan(space: SearchSpace, tmp_path: Path) -> None:
    failed = passed(passed=False, max_relative_difference=math.inf, moved=math.nan, reason="it is NaN")
    history = [{**epochs(1)[0], "accuracy": math.nan}]
    write_report(tmp_path, report(space, verification=failed, chosen={"bn75": math.inf}, history=history))
    read = read_report(tmp_path)
    assert read["verified"]["max_relative_difference"] is None and read["chosen"][0]["redundancy"] is None
    assert read["history"][0]["accuracy"] is None


def test_reports_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"has no report\.json\nFinish the run"):
        read_report(tmp_path)
    for text, message in (("{", "cannot be read"), ("[]", "no report"), ('{"format": 99}', "no report")):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(RunDirectoryError, match=message):
            read_report(tmp_path)


def test_a_folder_that_cannot_be_written(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AsgnasError, match="cannot be written"):
        write_report(tmp_path / "file", report(space))


# report.md


def test_every_section_is_there(space: SearchSpace) -> None:
    text = markdown(report(space))
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == [
        "# stackedunets: full and compact",
        "## What was removed",
        "## What stays, and why",
        "## Training",
        "## Verification",
        "## How it was run",
    ]
    for sentence in (
        "The compact model has 38.8 % of the parameters and 40.8 % of the multiply-accumulates of the full one, "
        "and gives the same output. Its accuracy on the test data is 83.0 %, that of the full one 83.0 %.",
        "4 of 6 minimal removal structures are gone, and 1 larger one with them. The target was remove_groups=4",
        "At most 5 structures can certainly go together",
        "8 epochs in 1 min 40 s. Phase at the end of each epoch: warm-up 1, hybrid 2 to 3, converge 4 to 8.",
        "on made-up inputs (batch 1), made-up inputs (batch 3) and the given inputs.",
        "Passed: it is 3.1e-07, and 1e-05 is allowed. "
        "The removal moved the output of the original full model by 5.3e-01.",
        "Versions: onnx 1.23.2.",
    ):
        assert sentence in text
    assert "None" not in text


def test_tables_are_well_formed(space: SearchSpace) -> None:
    """Every row of a table has as many cells as its header."""
    blocks = [b.splitlines() for b in markdown(report(space)).split("\n\n") if b.startswith("|")]
    assert len(blocks) == 5
    for lines in blocks:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert len({len(line) for line in lines}) == 1, "it reads as text too"


def test_a_failed_verification_is_not_hidden(space: SearchSpace) -> None:
    failed = passed(passed=False, reason="output 'y' has NaN in it", first_tensor="conv|3", remarks=("look at 'y'",))
    text = markdown(report(space, verification=failed))
    assert "**it does not give the same output** (see Verification)" in text
    assert "**Failed**: output `y` has NaN in it; the first tensor that differs is `conv\\|3`." in text
    assert "- look at `y`" in text


def test_names_become_code() -> None:
    assert _quoted("'a' is the model's, 'b|c' is not") == "`a` is the model's, `b\\|c` is not"
    assert _quoted("it isn't the user's") == "it isn't the user's"
    assert _code("a|b") == "`a\\|b`" and _code("a`b") == "`` a`b ``"
    assert _value(("x*", "y")) == "`x*`, `y`" and _value(()) == _value(None) == "–" and _value(False) == "no"


def test_a_long_training_is_thinned(space: SearchSpace) -> None:
    text = markdown(report(space, history=epochs(300)))
    shown = [line for line in text.splitlines() if "| converge |" in line or "| warm-up  |" in line]
    assert "20 of 300 epochs are shown" in text
    assert shown[0].split("|")[1].strip() == "1" and shown[-1].split("|")[1].strip() == "300"


def test_a_run_without_labels_history_or_removals(space: SearchSpace) -> None:
    plain = ModelFacts(params=5, macs=5, bytes=5)
    text = markdown(
        report(
            space,
            chosen={},
            redundancy={},
            history=(),
            comparison=Benchmark(models=(plain, plain)),
            verification=passed(moved=None, max_relative_difference=0.0, runs=("made-up inputs",)),
            versions={},
            stages={"analyze": 0.25, "train": 130.0},
        )
    )
    assert "Nothing: no group is at zero. The target was remove_groups=4." in text
    assert "There is no record of the training." in text
    assert "accuracy" not in text and "The removal moved" not in text and "Versions" not in text
    assert "Passed: it is exactly 0, and 1e-05 is allowed.\n" in text
    assert "Where the steps spent their time: analyze 0.2 s, train 2 min 10 s." in text


def test_long_tables_are_cut_and_unknown_operators_named(parse: Callable[[str], onnx.ModelProto]) -> None:
    """Forty-one residual blocks, and an operator that nobody registered."""
    blocks = [
        f"c{at} = Conv <kernel_shape = [1, 1]> (x{at}, w{at})  x{at + 1} = Add (x{at}, c{at})" for at in range(41)
    ]
    weights = ", ".join(f"float[2,2,1,1] w{at} = {{1, 2, 3, 4}}" for at in range(41))
    body = "\n".join(blocks)
    model = parse(f"g (float[N,2,4,4] x0) => (float[N,2,4,4] y) <{weights}> {{ {body} y = Det2 <a = 1> (x41) }}")
    space = analyze(model)
    text = markdown(report(space, chosen={}, redundancy={}, history=()))
    assert "… and 1 more, in report.json." in text
    assert "Operators that are not known, and stay with all that they touch: `Det2`." in text


@pytest.fixture
def parse() -> Callable[[str], onnx.ModelProto]:
    def model(graph: str) -> onnx.ModelProto:
        text = f'<ir_version: 8, opset_import: ["": 17, "custom": 1]> {graph.replace("Det2", "custom.Det2")}'
        return onnx.parser.parse_model(text)

    return model


def test_the_facts_agree_with_the_model(space: SearchSpace) -> None:
    assert profile(build("stackedunets", width=8)).params == space.params == 12610
