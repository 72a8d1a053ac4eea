"""Transformers from ids and masks to a verified compact model: losses, targets by name, teachers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnx_asgnas as nas
from onnx_asgnas.cli import main
from onnx_asgnas.config import TrainConfig
from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.finetuning import finetune
from onnx_asgnas.graph import save_model
from onnx_asgnas.runs import data_for
from tests.token_networks import LENGTH, WORDS, encoder, generator, saved, sequences

PLAIN: dict[str, Any] = {"epochs": 6, "batch_size": 16, "variant": "adamw", "lr": 0.02, "threads": 1}


def perplexities(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["metrics"]["perplexity"] for event in events if event["kind"] == "epoch"]


def test_a_language_model_is_pruned_on_the_ids_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = saved(tmp_path, **sequences())
    result = nas.search(
        generator(),
        data,
        nas.Target(keep_macs=0.8),
        run_dir=tmp_path / "run",
        mode="prune",
        loss="next_token",
        clip_grad_norm=1.0,
        warmup_epochs=0.5,
        **PLAIN,
    )
    facts = result.report.to_dict()
    assert facts["verified"]["passed"]
    assert facts["verified"]["max_relative_difference"] <= 1e-5
    assert facts["kept"]["macs"] <= 0.8
    found = perplexities(tmp_path / "run")
    assert found[-1] < 0.7 * found[0] < WORDS
    assert facts["compact"]["metrics"]["perplexity"] == pytest.approx(found[-1], rel=1e-4)
    assert facts["compact"]["accuracy"] == facts["compact"]["metrics"]["top1"]
    compact = str(tmp_path / "run" / "compact.onnx")
    assert main(["benchmark", compact, "--data", data, "--loss", "next_token", "--seconds", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["full"]["metrics"] == facts["compact"]["metrics"]
    arguments = ["prune", compact, "--keep-macs", "0.9", "--data", data, "--loss", "next_token", "--json"]
    assert main([*arguments, "-o", str(tmp_path / "smaller.onnx")]) == 0
    assert json.loads(capsys.readouterr().out)["compact"]["metrics"]["perplexity"] > 1


def test_hidden_words_and_a_value_are_learned_together(tmp_path: Path) -> None:
    arrays = sequences()
    hidden = (np.random.default_rng(1).random(arrays["input_ids"].shape) < 0.3) & (arrays["attention_mask"] == 1)
    label = np.where(hidden, arrays["input_ids"], -100)
    value = arrays["input_ids"][..., None].astype(np.float32) / WORDS
    shown = {**arrays, "input_ids": np.where(hidden, 0, arrays["input_ids"])}
    data = saved(tmp_path, **shown, label=label, value=value)
    result = nas.search(
        encoder(),
        data,
        nas.Target(keep_macs=0.9),
        run_dir=tmp_path / "run",
        mode="joint",
        loss="logits=cross_entropy:1,value=mse?target=value:0.4",
        metrics="logits=perplexity,value=mse",
        **PLAIN,
    )
    facts = result.report.to_dict()
    assert facts["verified"]["passed"]
    first, last = facts["history"][0]["metrics"], facts["history"][-1]["metrics"]
    assert set(last) == {"logits.perplexity", "value.mse"}
    assert last["logits.perplexity"] < first["logits.perplexity"]
    assert last["value.mse"] < first["value.mse"]


def test_a_teacher_teaches_what_the_labels_do_not(tmp_path: Path) -> None:
    data = saved(tmp_path, **sequences())
    teacher = finetune(generator(), data, loss="next_token", **PLAIN)
    save_model(teacher.model, tmp_path / "teacher.onnx")
    told = {**PLAIN, "epochs": 2, "loss": "next_token"}
    taught = finetune(generator(), data, distill=f"{tmp_path / 'teacher.onnx'}?weight=0.9&temperature=1", **told)
    alone = finetune(generator(), data, **told)
    assert taught.after is not None
    assert alone.after is not None
    assert taught.after.loss != alone.after.loss
    assert taught.after.loss < 1.1 * alone.after.loss
    quiet = {"variant": "sgd", "lr": 0.1, "weight_decay": 0.0}
    itself = finetune(teacher.model, data, distill="self?weight=1", **{**told, **quiet})
    assert itself.before is not None
    assert itself.after is not None
    assert itself.after.loss == pytest.approx(itself.before.loss, rel=1e-5)  # it has nothing to learn from itself


def test_what_the_data_lacks_is_named_with_what_the_network_reads(tmp_path: Path) -> None:
    arrays = sequences()
    ids = arrays["input_ids"]
    with pytest.raises(DataError, match="no array 'attention_mask'") as caught:
        data_for(generator(), saved(tmp_path, input_ids=ids), "next_token")
    assert "attention_mask: int64[N,8]" in str(caught.value)
    with pytest.raises(DataError, match="has no array 'label'") as caught:
        data_for(encoder(), saved(tmp_path, **arrays), "cross_entropy")
    assert "the loss needs label" in str(caught.value)
    with pytest.raises(DataError, match=rf"has the label \d+ in 'label' .* tells {WORDS} classes apart"):
        data_for(encoder(), saved(tmp_path, **arrays, label=ids + WORDS), "cross_entropy")
    with pytest.raises(DataError, match="'input_ids' is float64, int64 is read"):
        data_for(generator(), saved(tmp_path, **{**arrays, "input_ids": ids / 2}), "next_token")
    with pytest.raises(InputError, match="no output 'scores'"):
        data_for(encoder(), saved(tmp_path, **arrays), "scores=mse")


def batches(split: str = "train", *, targets: bool = False) -> Iterator[Any]:
    """What a Python source may give: inputs alone, or with targets by name."""
    arrays = {name: torch.from_numpy(array[:4]) for name, array in sequences().items()}
    yield (arrays, {"label": arrays["input_ids"], "value": torch.zeros(4, LENGTH, 1)}) if targets else arrays


def test_a_python_source_may_give_inputs_alone_or_targets_by_name() -> None:
    (inputs, target), *_ = data_for(generator(), f"python:{__name__}:batches", "next_token").train.batches(4)
    assert isinstance(target, torch.Tensor)
    assert torch.equal(target, inputs["input_ids"])
    loss = "logits=cross_entropy,value=mse?target=value"
    (_, named), *_ = data_for(encoder(), f"python:{__name__}:batches?targets=true", loss).train.batches(4)
    assert isinstance(named, dict)
    assert set(named) == {"label", "value"}
    with pytest.raises(DataError, match="has no array 'label'"):
        data_for(encoder(), f"python:{__name__}:batches", "cross_entropy")


def test_the_defaults_for_trained_weights_are_kept_in_the_run(tmp_path: Path) -> None:
    told = TrainConfig.of(data="d", pretrained=True, variant="adamw", epochs=1)
    assert TrainConfig.from_json(told.to_json()) == told
    assert told.lr == pytest.approx(0.001 / 3)


def test_finetune_refuses_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="finetune trains in one process"):
        finetune(generator(), saved(tmp_path, **sequences()), loss="next_token", **PLAIN)
