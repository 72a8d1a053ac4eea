from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnx_asgnas.errors import InputError, NonFiniteError
from onnx_asgnas.space import Group, Slice
from onnx_asgnas.training import scores
from onnx_asgnas.training.groups import GroupAtoms
from onnx_asgnas.training.loss_probe import LossProbe, samples_for
from onnx_asgnas.training.scores import RedundancyScore, Statistics, parse_score, score_names


def part(initializer: str, axis: int | None = None, indices: tuple[int, ...] = ()) -> Slice:
    return Slice(initializer=initializer, axis=axis, indices=indices)


def group(name: str, *slices: Slice) -> Group:
    return Group(name=name, slices=slices)


def statistics(weights: list[list[float]], gradients: list[list[float]], seed: int = 0) -> Statistics:
    """Statistics of one group per list."""
    parameters = {f"w{i}": torch.tensor(w) for i, w in enumerate(weights)}
    groups = [group(name, part(name)) for name in parameters]
    return Statistics(
        GroupAtoms(groups, parameters), list(parameters.values()), [torch.tensor(g) for g in gradients], seed
    )


WEIGHTS = [[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]]
GRADIENTS = [[3.0, 4.0], [-2.0, 0.0], [1.0, -1.0]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [-5.0, -1.0, -math.sqrt(8)]),
        ("mean-magnitude", [1 / 5, 1.0, 1 / math.sqrt(8)]),
        ("cosine", [1.0, -1.0, 0.0]),
        ("taylor1", [-25.0, -2.0, 0.0]),
        ("taylor2", [-312.5, -2.0, 0.0]),
    ],
)
def test_values_by_hand(name: str, expected: list[float]) -> None:
    values = scores._STATISTICS[name](statistics(WEIGHTS, GRADIENTS))
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_the_mean_magnitude_does_not_depend_on_the_size() -> None:
    values = scores.mean_magnitude(statistics([[2.0] * 9, [2.0], [4.0]], [[0.0] * 9, [0.0], [0.0]]))
    torch.testing.assert_close(values, torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64))


def test_groups_without_weights_or_gradient_have_finite_scores() -> None:
    groups = statistics([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    for name in ("magnitude", "mean-magnitude", "cosine", "taylor1", "taylor2", "random"):
        assert scores._STATISTICS[name](groups).isfinite().all(), name
    assert scores.mean_magnitude(groups).tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(scores.cosine(groups), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def test_a_positive_cosine_means_that_removal_lowers_the_loss() -> None:
    """f(x) = ½ Σ‖x_g - m_g‖² with x_g beyond m_g, short of it, and m_g = 0: the origin is downhill where x > m/2."""
    minimum = torch.tensor([[2.0, 1.0], [6.0, 3.0], [0.0, 0.0]])
    x = torch.tensor([[4.0, 2.0]] * 3)
    cosine = scores.cosine(statistics(x.tolist(), (x - minimum).tolist()))
    torch.testing.assert_close(cosine, torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    small = 1e-3
    change = ((1 - small) * x - minimum).square().sum(1) - (x - minimum).square().sum(1)
    assert (change < 0).tolist() == (cosine > 0).tolist()


def test_random_depends_on_the_seed_alone() -> None:
    one = scores.random(statistics(WEIGHTS, GRADIENTS, seed=1))
    assert torch.equal(one, scores.random(statistics(GRADIENTS, WEIGHTS, seed=1)))
    assert not torch.equal(one, scores.random(statistics(WEIGHTS, GRADIENTS, seed=2)))


def test_the_registered_scores() -> None:
    assert score_names() == ("cosine", "magnitude", "mean-magnitude", "measured", "random", "taylor1", "taylor2")


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("magnitude", {"magnitude": 1.0}),
        ("magnitude:2, cosine:0.5", {"magnitude": 2.0, "cosine": 0.5}),
        ({"taylor1": 3}, {"taylor1": 3.0}),
        ("paper", {"cosine": 0.5, "mean-magnitude": 0.5}),
        ("hesso", dict.fromkeys(["magnitude", "mean-magnitude", "cosine", "taylor1", "taylor2"], 0.2)),
        ("measured:2,paper:4", {"measured": 2.0, "cosine": 2.0, "mean-magnitude": 2.0}),
    ],
)
def test_ways_to_write_a_score(text: str | dict[str, float], weights: dict[str, float]) -> None:
    assert parse_score(text) == weights


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magnitud", "no score 'magnitud'"),
        ("magnitude:x", "weight of score 'magnitude' is 'x'"),
        ("magnitude:", "weight of score 'magnitude' is ''"),
        ("magnitude:0", "is 0.0"),
        ("magnitude:inf", "is inf"),
        ({"magnitude": -1.0}, "is -1.0"),
        ("", "no score ''"),
        ({}, "no score is given"),
    ],
)
def test_scores_that_are_refused(text: str | dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_score(text)
    assert error.value.fix


def test_the_momentum_is_checked() -> None:
    with pytest.raises(InputError, match="score_momentum is 1"):
        RedundancyScore("cosine", momentum=1.0)


@pytest.fixture
def added_scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scores, "_STATISTICS", dict(scores._STATISTICS))
    monkeypatch.setattr(scores, "_LOSS", dict(scores._LOSS))
    yield


@pytest.mark.usefixtures("added_scores")
def test_a_score_is_added_by_one_function() -> None:
    @scores.from_statistics("largest-first")
    def largest_first(groups: Statistics) -> Tensor:
        return groups.weight_norm

    assert "largest-first" in score_names()
    score = RedundancyScore("largest-first")
    score.sample(statistics(WEIGHTS, GRADIENTS))
    assert score.rank(()).argmax() == 0
    with pytest.raises(ValueError, match="twice"):
        scores.from_loss("largest-first")(lambda probe, chosen: np.zeros(1))


def test_the_moving_average() -> None:
    score = RedundancyScore("magnitude", momentum=0.75)
    first, second = [[0.0], [1.0], [4.0]], [[4.0], [0.0], [1.0]]
    for weights in (first, second):
        score.sample(statistics(weights, [[0.0]] * 3))
    scaled = np.array([[1.0, 0.75, 0.0], [0.0, 1.0, 0.75]])
    expected = (0.75 * 0.25 * scaled[0] + 0.25 * scaled[1]) / (1 - 0.75**2)
    np.testing.assert_allclose(score.rank(()), expected, rtol=1e-12)


def test_parts_are_scaled_to_one_range_before_they_are_added() -> None:
    score = RedundancyScore("magnitude:1,cosine:2")
    score.sample(statistics(WEIGHTS, GRADIENTS))
    magnitude = np.array([0.0, 1.0, (5 - math.sqrt(8)) / 4])
    np.testing.assert_allclose(score.rank(()), magnitude + 2 * np.array([1.0, 0.0, 0.5]), rtol=1e-6)


def test_equal_groups_have_equal_scores() -> None:
    score = RedundancyScore("hesso")
    score.sample(statistics([[1.0, 2.0]] * 3, [[1.0, -1.0]] * 3))
    assert score.rank(()).tolist() == [0.0, 0.0, 0.0]


class Additive(nn.Module):
    """A loss Σ_g (x_g - 1)²·c_g + coupling·[x_0 = x_1 = 0]: removal of g costs c_g, of 0 and 1 together more."""

    def __init__(self, costs: list[float], coupling: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(costs)))
        self.register_buffer("runs", torch.zeros(()))
        self.costs = torch.tensor(costs)
        self.coupling = coupling

    def loss(self) -> float:
        assert not torch.is_grad_enabled()
        assert isinstance(self.runs, Tensor)
        self.runs += 1
        both = (self.w[:2] == 0).all()
        return float((self.costs * (self.w - 1).square()).sum() + self.coupling * both)

    def atoms(self) -> GroupAtoms:
        groups = [group(f"g{i}", part("w", 0, (i,))) for i in range(len(self.costs))]
        return GroupAtoms(groups, dict(self.named_parameters()))


class Counted:
    def __init__(self, function: Callable[[], float]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.function()


def test_measured_is_the_rise_of_the_loss_cumulatively() -> None:
    model = Additive([1.0, 2.0, 4.0], coupling=8.0)
    evaluate = Counted(model.loss)
    score = RedundancyScore("measured")
    probe = LossProbe(model, model.atoms(), evaluate)
    np.testing.assert_allclose(score.rank((), probe), [-1.0, -2.0, -4.0])
    np.testing.assert_allclose(score.rank((0,), probe)[1:], [-10.0, -4.0])
    np.testing.assert_allclose(score.rank((0, 2), probe)[1:2], [-10.0])
    assert evaluate.calls == 1 + 3 + 2 + 1 <= 3 * (2 + 1)


def test_measuring_leaves_weights_and_buffers_to_the_bit() -> None:
    model = Additive([1.0, 2.0, 4.0])
    with torch.no_grad():
        model.w.copy_(torch.tensor([-0.0, 1e-40, 0.1]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    LossProbe(model, model.atoms(), model.loss).rises(())
    for name, value in model.state_dict().items():
        assert torch.equal(value.view(-1).view(torch.int32), before[name].view(-1).view(torch.int32)), name


def test_weights_come_back_when_the_evaluation_fails() -> None:
    model = Additive([1.0, 2.0])

    def fail() -> float:
        if (model.w == 0).any():
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        LossProbe(model, model.atoms(), fail).rises(())
    assert model.w.tolist() == [1.0, 1.0]


def test_many_groups_are_measured_for_each_choice() -> None:
    costs = [float(i + 1) for i in range(70)]
    model = Additive(costs, coupling=1000.0)
    evaluate = Counted(model.loss)
    probe = LossProbe(model, model.atoms(), evaluate)
    chosen: tuple[int, ...] = ()
    for _ in range(5):
        rises = probe.rises(chosen)
        rises[list(chosen)] = np.inf
        chosen = (*chosen, int(rises.argmin()))
    assert chosen == (0, 2, 3, 4, 5)
    assert evaluate.calls == sum(70 - at for at in range(5)) + 1


@pytest.mark.parametrize(("groups", "samples"), [(0, 1024), (8, 512), (14, 256), (28, 128), (64, 64), (400, 64)])
def test_the_more_groups_the_fewer_samples_each(groups: int, samples: int) -> None:
    assert samples_for(groups) == samples


def test_a_large_supernet_is_measured_after_several_choices() -> None:
    count = 400
    model = Additive([float(i + 1) for i in range(count)])
    evaluate = Counted(model.loss)
    probe = LossProbe(model, model.atoms(), evaluate)
    chosen: tuple[int, ...] = ()
    while len(chosen) < count // 2:
        rises = probe.rises(chosen)
        assert not rises[list(chosen)].any()
        rises[list(chosen)] = np.inf
        chosen = (*chosen, int(rises.argmin()))
    assert chosen == tuple(range(count // 2))
    assert evaluate.calls <= 1024


def test_a_group_that_nobody_needs_once_another_is_gone() -> None:
    """What was dearest at first is measured again, however many groups there are."""
    model = Additive([1.0, *(float(i) for i in range(50, 118)), 200.0], coupling=0.0)
    probe = LossProbe(model, model.atoms(), lambda: model.loss() - 190 * float(not model.w[0] and not model.w[69]))
    assert probe.rises(()).argmax() == 69
    assert probe.rises((0,))[69] == pytest.approx(10)


def test_a_loss_that_is_not_finite_without_a_group_makes_that_group_the_last() -> None:
    model = Additive([1.0, 2.0, 4.0])
    probe = LossProbe(model, model.atoms(), lambda: math.nan if model.w[1] == 0 else model.loss())
    assert probe.rises(()).argmax() == 1
    assert np.isfinite(probe.rises(())).all()


def test_a_loss_that_is_not_finite_to_begin_with_is_an_error() -> None:
    model = Additive([1.0])
    with pytest.raises(NonFiniteError, match="no group at zero"):
        LossProbe(model, model.atoms(), lambda: math.inf).rises(())


def test_measured_without_an_evaluation_is_refused() -> None:
    with pytest.raises(InputError, match="evaluate"):
        RedundancyScore("measured").rank(())


def test_measured_can_be_mixed_with_statistics() -> None:
    model = Additive([1.0, 2.0, 5.0])
    score = RedundancyScore("measured:1,magnitude:1")
    score.sample(statistics([[1.0], [2.0], [3.0]], [[0.0]] * 3))
    probe = LossProbe(model, model.atoms(), model.loss)
    np.testing.assert_allclose(score.rank((), probe), [2.0, 0.75 + 0.5, 0.0])
    np.testing.assert_allclose(score.rank((0,), probe)[1:], [1.0 + 0.5, 0.0])
    assert np.isfinite(score.rank((0, 1, 2), probe)).all()


def test_the_average_is_restored() -> None:
    score, other = RedundancyScore("hesso"), RedundancyScore("hesso")
    score.sample(statistics(WEIGHTS, GRADIENTS))
    other.load_state_dict(score.state_dict())
    for s in (score, other):
        s.sample(statistics(GRADIENTS, WEIGHTS))
    assert (score.rank(()) == other.rank(())).all()
