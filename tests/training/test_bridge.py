"""OnnxModule as torch users meet it: parameters, modes, statistics, copies, optimisers, and errors that teach."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper, parser
from torch import nn

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import DataError, InputError, ModelError, TrainingError, UnsupportedOperatorError
from onnx_asgnas.training.bridge import OnnxModule

pytestmark = pytest.mark.usefixtures("engine")

Tensor = torch.Tensor


class Net(nn.Module):
    """The torch twin of `model()`: convolutions, BN, residual and concatenated branches, pooling, resizing, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8))
        self.mix = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norm(self.stem(x)))
        b = a + F.interpolate(self.branch(a), scale_factor=2)
        c = F.interpolate(self.mix(F.max_pool2d(b, 2)), scale_factor=2, mode="bilinear")
        d = torch.cat([F.avg_pool2d(b, 2), F.avg_pool2d(c, 2)], 1)
        out: Tensor = self.head(d.mean((2, 3)))
        return out


BODY = """{
    s = Conv<pads=[1, 1, 1, 1]>(x, stem.weight, stem.bias)
    n = BatchNormalization(s, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    a = Relu(n)
    p = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(a, branch.0.weight)
    q = BatchNormalization(p, branch.1.weight, branch.1.bias, branch.1.running_mean, branch.1.running_var)
    r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(q, , twice)
    b = Add(a, r)
    m = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(b)
    k = Conv(m, mix.weight, mix.bias)
    c = Resize<mode="linear">(k, , twice)
    e = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(b)
    f = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(c)
    d = Concat<axis=1>(e, f)
    g = GlobalAveragePool(d)
    h = Flatten(g)
    y = Gemm<transB=1>(h, head.weight, head.bias)
}"""


def from_text(text: str, weights: dict[str, Any], *, opset: int = 17) -> onnx.ModelProto:
    """A model from ONNX's text form; names with dots are written as they are."""
    names = sorted((name for name in weights if not name.isidentifier()), key=len, reverse=True)
    for at, name in enumerate(names):
        text = text.replace(name, f"weight_{at}_")
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    back = {f"weight_{at}_": name for at, name in enumerate(names)}
    for node in model.graph.node:
        node.input[:] = [back.get(name, name) for name in node.input]
    for name, value in weights.items():
        array = np.asarray(value)
        model.graph.initializer.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
        )
    return model


def twins(seed: int = 0, **options: Any) -> tuple[OnnxModule, Net]:
    torch.manual_seed(seed)
    net = Net()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    weights = {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}
    model = from_text(
        f"net (float[N,3,8,8] x) => (float[N,5] y) {BODY}", {**weights, "twice": np.array([1.0, 1, 2, 2])}
    )
    return OnnxModule(model, **options), net


def linear(weights: dict[str, Any] | None = None, **options: Any) -> OnnxModule:
    text = "g (float[N,3] x) => (float[N,2] y) { h = MatMul(x, W) y = Add(h, b) }"
    return OnnxModule(from_text(text, weights or {"W": np.ones((3, 2)), "b": np.zeros(2)}), **options)


def call(module: nn.Module, *args: Tensor, **kwargs: Tensor) -> Tensor:
    output = module(*args, **kwargs)
    assert isinstance(output, Tensor)
    return output


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def close(found: Tensor | None, wanted: Tensor | None, tolerance: float = 1e-5) -> None:
    assert found is not None
    assert wanted is not None
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def batch(size: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 5, (size,), generator=generator)


# against torch


def test_training_forward_gradients_and_statistics_are_those_of_torch() -> None:
    module, net = twins()
    x, labels = batch()
    x.requires_grad_()
    mine = x.detach().clone().requires_grad_()
    for size in (6, 4):
        backward(F.cross_entropy(call(module, mine[:size]), labels[:size]))
        backward(F.cross_entropy(net(x[:size]), labels[:size]))
    wanted = dict(net.named_parameters())
    whole = torch.cat([p.grad.flatten() for p in wanted.values() if p.grad is not None]).norm()
    for name, parameter in module.named_parameters():
        gradient = wanted[name].grad
        assert parameter.grad is not None
        assert gradient is not None
        assert (parameter.grad - gradient).norm() <= 1e-4 * max(gradient.norm(), 1e-3 * whole), name
    close(mine.grad, x.grad)
    for name, statistic in module.named_buffers():
        if name.endswith("mean"):
            close(statistic, net.get_buffer(name), 1e-6)


def test_running_variance_is_the_population_variance() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = BatchNormalization<momentum=0.8>(x, s, b, m, v) }"
    weights = {"s": np.ones(3), "b": np.zeros(3), "m": np.full(3, 2.0), "v": np.full(3, 3.0)}
    module = OnnxModule(from_text(text, weights))
    x = torch.randn(4, 3)
    call(module, x)
    close(module.get_buffer("m"), 0.8 * torch.full((3,), 2.0) + 0.2 * x.mean(0), 1e-6)
    close(module.get_buffer("v"), 0.8 * torch.full((3,), 3.0) + 0.2 * x.var(0, correction=0), 1e-6)


NORM = "BatchNormalization<momentum=0.8>"


@pytest.mark.parametrize(
    "body",
    [
        f"y = {NORM}(x, s, b, m, v)",
        f"h = {NORM}(x, s, b, m, v) y = Identity(h)",
        f"h = {NORM}(x, s, b, m, v) y = Dropout(h)",
        f"h = {NORM}(x, s, b, m, v) y = Relu(h)",
        f"h = {NORM}(x, s, b, m, v) r = Relu(h) y = Add(h, r)",
        f"h = {NORM}(x, s, b, m, v) y = MatMul(h, W)",
        f"h = Add(x, x) y = {NORM}(h, s, b, m, v)",
        f"h = {NORM}(x, s, b, m, v) e = Exp(h) y = {NORM}(e, s, b, m, v)",
    ],
)
def test_statistics_are_updated_wherever_the_normalisation_stands(body: str) -> None:
    weights = {"s": np.ones(3), "b": np.zeros(3), "m": np.zeros(3), "v": np.ones(3), "W": np.eye(3)}
    used = {name: value for name, value in weights.items() if name in body.replace(",", " ").replace(")", " ").split()}
    module = OnnxModule(from_text(f"g (float[N,3] x) => (float[N,3] y) {{ {body} }}", used))
    x = torch.randn(16, 3)
    norm = nn.BatchNorm1d(3, momentum=0.2)
    for _ in range(2):
        call(module, x)
        h = x + x if "Add(x, x)" in body else x
        # In normal form each node has statistics of its own, and m is the last one's.
        norm(torch.exp(F.batch_norm(h, None, None, training=True)) if "Exp" in body else h)
    assert norm.running_mean is not None
    close(module.get_buffer("m"), norm.running_mean, 1e-6)


def test_evaluation_is_onnxruntime_on_the_exported_network() -> None:
    module, net = twins()
    x, labels = batch()
    for network in (module, net):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        backward(F.cross_entropy(call(network, x), labels))
        optimizer.step()
    module.eval()
    before = {name: b.clone() for name, b in module.named_buffers()}
    with torch.no_grad():
        output = call(module, x)
    session = onnxruntime.InferenceSession(module.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(output.numpy(), session.run(None, {"x": x.numpy()})[0], rtol=1e-5, atol=1e-5)
    for name, statistic in module.named_buffers():
        assert torch.equal(statistic, before[name])
        if name.endswith("var"):
            net.get_buffer(name).copy_(statistic)  # torch's is the sample variance
    close(output, net.eval()(x), 1e-5)


def test_evaluation_sees_changed_weights_and_statistics() -> None:
    module, _ = twins()
    module.eval()
    x, _ = batch()
    with torch.no_grad():
        first = call(module, x)
        module.flat.mul_(0.5)
        module.get_buffer("norm.running_mean").add_(0.3)
        second = call(module, x)
    fresh = OnnxModule(module.to_onnx()).eval()
    assert not torch.allclose(first, second)
    close(second, call(fresh, x).detach(), 1e-6)


def test_gradients_in_evaluation_mode_use_running_statistics() -> None:
    module, net = twins()
    module.eval()
    net.eval()
    x, labels = batch()
    mine = x.clone().requires_grad_()
    x.requires_grad_()
    backward(F.cross_entropy(call(module, mine), labels))
    backward(F.cross_entropy(net(x), labels))
    for name, parameter in module.named_parameters():
        close(parameter.grad, net.get_parameter(name).grad)
    close(mine.grad, x.grad)
    for name, statistic in module.named_buffers():
        assert torch.equal(statistic, net.get_buffer(name))


def test_frozen_batch_normalisation_trains_on_running_statistics() -> None:
    module, net = twins(freeze_bn=True)
    net.eval()  # torch's way to freeze it
    x, labels = batch()
    output = call(module.train(), x)
    close(output, net(x))
    backward(F.cross_entropy(output, labels))
    backward(F.cross_entropy(net(x), labels))
    for name, parameter in module.named_parameters():
        close(parameter.grad, net.get_parameter(name).grad)
    for name, statistic in module.named_buffers():
        assert torch.equal(statistic, net.get_buffer(name))


def test_training_mode_without_gradients_still_updates_statistics() -> None:
    module, net = twins()
    x, _ = batch()
    with torch.no_grad():
        output = call(module, x)
        close(output, net(x))
    assert not output.requires_grad
    close(module.get_buffer("norm.running_mean"), net.get_buffer("norm.running_mean"), 1e-6)


# torch's ways of training


def plain_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-3)


def rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=1e-3)


@pytest.mark.parametrize("make_optimizer", [plain_sgd, adamw, rmsprop])
@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        lambda output, labels: F.cross_entropy(output, labels, label_smoothing=0.1),
        lambda output, labels: F.mse_loss(output.softmax(1), F.one_hot(labels, 5).float()),
    ],
)
def test_optimisers_schedulers_and_losses_take_the_steps_that_they_take_in_torch(
    make_optimizer: Callable[[Any], torch.optim.Optimizer], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    losses = []
    for network in twins(freeze_bn=True):
        if isinstance(network, Net):
            network.eval()
        optimizer = make_optimizer(network.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
        values = []
        for step in range(6):
            x, labels = batch(seed=step)
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            value = loss(call(network, x), labels)
            backward(value)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            values.append(value.item())
        losses.append(values)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_optimiser_with_a_closure() -> None:
    module = linear()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=20, line_search_fn="strong_wolfe")
    x = torch.randn(30, 3)
    target = x @ torch.tensor([[1.0, -1], [0.5, 2], [0, 1]]) + 0.3

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = F.mse_loss(call(module, x), target)
        backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert F.mse_loss(call(module, x), target).item() < 1e-8


def test_gradients_accumulate_and_runs_may_overlap() -> None:
    module, net = twins()
    (x, labels), (z, others) = batch(seed=1), batch(seed=2)
    for network in (module, net):
        first, second = call(network, x), call(network, z)
        backward(F.cross_entropy(second, others))
        backward(F.cross_entropy(first, labels))
    for name, parameter in module.named_parameters():
        close(parameter.grad, net.get_parameter(name).grad, 1e-4)


def test_outputs_survive_the_backward_run() -> None:
    module, _ = twins()
    x, labels = batch()
    output = call(module, x)
    before = output.detach().clone()
    backward(F.cross_entropy(output, labels))
    call(module, x)
    assert torch.equal(output, before)


def test_second_backward_of_one_run_is_a_clear_error() -> None:
    module = linear()
    loss = call(module, torch.randn(2, 3)).sum()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingError, match="backward was already run"):
        backward(loss)


def test_weights_changed_between_forward_and_backward_are_noticed() -> None:
    module = linear()
    loss = call(module, torch.randn(2, 3)).sum()
    with torch.no_grad():
        module.get_parameter("W").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        backward(loss)


def test_two_runs_give_the_same_bits() -> None:
    results = []
    for _ in range(2):
        module, _ = twins()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            x, labels = batch(seed=step)
            optimizer.zero_grad()
            backward(F.cross_entropy(call(module, x), labels))
            optimizer.step()
        results.append(torch.cat([module.flat, *(b for _, b in module.named_buffers())]))
    assert torch.equal(*results)


def test_nothing_is_kept_alive_by_a_run() -> None:
    module, _ = twins()
    x, labels = batch()
    output = call(module, x)
    watched = weakref.ref(output.grad_fn)
    backward(F.cross_entropy(output, labels))
    del output
    call(module, x)  # a run that never goes backward
    gc.collect()
    assert watched() is None


# parameters and names


def test_parameters_are_views_of_one_vector() -> None:
    module, _ = twins()
    assert module.flat.dtype == torch.float32
    assert module.flat.is_contiguous()
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), module.flat)
    with torch.no_grad():
        module.flat.zero_()
    assert all(not p.any() for p in module.parameters())
    weight = module.get_parameter("stem.weight")
    assert weight.untyped_storage().data_ptr() == module.flat.untyped_storage().data_ptr()
    assert "flat" not in module.state_dict()


def test_names_are_those_of_onnx_whatever_they_are() -> None:
    names = [
        "a",
        "a.b",
        "a.b.c",
        ".lead",
        "trail.",
        "x..y",
        "on/nx::w:0",
        "weight.train",
        "forward",
        "flat.t",
        "w_grad",
        "w",
    ]
    chain = [helper.make_node("Mul", ["x", names[0]], ["t0"])]
    chain += [helper.make_node("Add", [f"t{i - 1}", name], [f"t{i}"]) for i, name in enumerate(names) if i]
    graph = helper.make_graph(
        [*chain, helper.make_node("Identity", [f"t{len(names) - 1}"], ["y_grad"])],
        "odd",
        [helper.make_tensor_value_info("x", 1, ["N", 2])],
        [helper.make_tensor_value_info("y_grad", 1, ["N", 2])],
        [numpy_helper.from_array(np.array([i, i + 0.5], np.float32), name) for i, name in enumerate(names)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    module = OnnxModule(model, train=["*"])
    assert {name for name, _ in module.named_parameters()} == set(names)
    assert set(module.state_dict()) == set(names)
    x = torch.ones(2, 2)
    output = call(module, x)
    assert torch.equal(
        output, x * torch.tensor([0, 0.5]) + sum(torch.tensor([i, i + 0.5]) for i in range(1, len(names)))
    )
    backward(output.sum())
    assert all(torch.equal(p.grad, torch.full((2,), 2.0)) for p in module.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in module.parameters())
    other = OnnxModule(model, train=["*"])
    with torch.no_grad():
        other.flat.fill_(7)
    assert not other.load_state_dict(module.state_dict()).unexpected_keys
    assert torch.equal(other.flat, module.flat)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**module.state_dict(), "a.z": x})


def test_dotted_names_are_nested_modules() -> None:
    module, _ = twins()
    assert module.get_submodule("branch.1").weight is module.get_parameter("branch.1.weight")


def test_frozen_and_named_weights() -> None:
    module, net = twins(freeze=["stem.*", "norm.bias"])
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {"stem.weight", "stem.bias", "norm.bias"}
    x, labels = batch()
    backward(F.cross_entropy(call(module, x), labels))
    backward(F.cross_entropy(net(x), labels))
    for name, parameter in module.named_parameters():
        if name in frozen:
            assert parameter.grad is None
        else:
            close(parameter.grad, net.get_parameter(name).grad, 1e-4)


def test_requires_grad_may_change_at_any_time() -> None:
    module = linear()
    weight, bias = module.get_parameter("W"), module.get_parameter("b")
    weight.requires_grad_(False)
    backward(call(module, torch.ones(2, 3)).sum())
    assert weight.grad is None
    assert bias.grad is not None
    weight.requires_grad_(True)
    backward(call(module, torch.ones(2, 3)).sum())
    close(weight.grad, torch.full((3, 2), 2.0))
    module.requires_grad_(False)
    assert not call(module, torch.ones(2, 3)).requires_grad


def test_constant_trains_when_it_is_named() -> None:
    text = "g (float[N,3] x) => (float[N,2] y) { h = MatMul(x, W) y = Mul(h, scale) }"
    model = from_text(text, {"W": np.ones((3, 2)), "scale": np.array(0.5)})
    assert {n for n, _ in OnnxModule(model).named_parameters()} == {"W"}
    module = OnnxModule(model, train=["sc*"])
    backward(call(module, torch.ones(1, 3)).sum())
    close(module.get_parameter("scale").grad, torch.tensor(6.0))


def test_weight_used_by_two_nodes_and_twice_by_one() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { h = MatMul(x, W) k = MatMul(h, W) s = Add(W, W) y = MatMul(k, s) }"
    module = OnnxModule(from_text(text, {"W": np.eye(3) + 0.1}))
    weight = module.get_parameter("W").detach().clone().requires_grad_()
    x = torch.randn(4, 3)
    backward(call(module, x).sum())
    backward((x @ weight @ weight @ (weight + weight)).sum())
    close(module.get_parameter("W").grad, weight.grad)


def test_data_of_a_parameter_set_elsewhere_comes_back_into_the_vector() -> None:
    module = linear()
    nn.utils.vector_to_parameters(torch.arange(8.0), module.parameters())
    close(call(module, torch.ones(1, 3)).detach(), torch.tensor([[6.0 + 6, 9 + 7]]))
    assert torch.equal(module.flat, torch.arange(8.0))


def test_parameter_that_was_replaced_is_a_clear_error() -> None:
    module, _ = twins()
    module.get_submodule("stem").weight = nn.Parameter(torch.zeros(8, 3, 3, 3))
    with pytest.raises(TrainingError, match=r"'stem\.weight' was replaced"):
        module(batch()[0])


def test_statistic_that_was_replaced_is_taken_over() -> None:
    module, net = twins()
    module.get_submodule("norm").running_mean = torch.zeros(8)
    net.norm.running_mean = torch.zeros(8)
    x, _ = batch()
    call(module, x)
    net(x)
    close(module.get_buffer("norm.running_mean"), net.norm.running_mean, 1e-6)


# inputs and outputs


def test_inputs_by_name_several_outputs_and_other_types() -> None:
    text = """g (float[N,3] x, bool[N,3] mask, int64[N] index) => (float[N,2] y, int64[N] best, bool[N,2] positive) {
        z = Cast<to=1>(mask) m = Mul(x, z) h = MatMul(m, W) e = Gather(E, index) y = Add(h, e)
        best = ArgMax<axis=1, keepdims=0>(y) positive = Greater(y, zero) }"""
    model = from_text(text, {"W": np.ones((3, 2)), "E": np.arange(8.0).reshape(4, 2), "zero": np.array(0.0)})
    module = OnnxModule(model)
    x, mask, index = torch.randn(5, 3), torch.rand(5, 3) > 0.5, torch.randint(0, 4, (5,))
    for mode in (True, False):
        module.train(mode)
        module.zero_grad()
        y, best, positive = module(x, index=index, mask=mask)
        table, weight = (module.get_parameter(n).detach().clone().requires_grad_() for n in ("E", "W"))
        wanted = (x * mask) @ weight + table[index]
        close(y, wanted)
        assert torch.equal(best, wanted.argmax(1))
        assert torch.equal(positive, wanted > 0)
        assert (y.requires_grad, best.requires_grad, positive.requires_grad) == (True, False, False)
        backward(y.square().sum())
        backward(wanted.square().sum())
        close(module.get_parameter("W").grad, weight.grad)
        close(module.get_parameter("E").grad, table.grad)
    assert module.input_names == ("x", "mask", "index")
    assert module.output_names == ("y", "best", "positive")


def test_loss_on_one_of_several_outputs() -> None:
    text = "g (float[N,3] x) => (float[N,2] y, float[N,2] z) { y = MatMul(x, W) z = MatMul(x, V) }"
    module = OnnxModule(from_text(text, {"W": np.ones((3, 2)), "V": np.ones((3, 2))}))
    _, z = module(torch.ones(2, 3))
    backward(z.sum())
    close(module.get_parameter("V").grad, torch.full((3, 2), 2.0))
    close(module.get_parameter("W").grad, torch.zeros(3, 2))


def test_batch_of_none() -> None:
    found = call(linear(), torch.from_numpy(np.zeros((0, 3), np.float32)))
    assert found.shape == (0, 2)


def test_input_that_is_not_contiguous() -> None:
    module, net = twins()
    x = batch()[0].transpose(2, 3)
    close(call(module, x), net(x))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "x missing"),
        ((torch.zeros(1, 3),), {"z": torch.zeros(1)}, "z not expected"),
        ((torch.zeros(1, 3), torch.zeros(1)), {}, "1 input: 2 were given"),
        ((torch.zeros(1, 3),), {"x": torch.zeros(1, 3)}, "x not expected"),
        ((torch.zeros(1, 4),), {}, r"input 'x' is float32\[1,4\], the network expects float32\[N,3\]"),
        ((torch.zeros(3),), {}, r"is float32\[3\], the network expects"),
        ((torch.zeros(1, 3, dtype=torch.float64),), {}, r"is float64\[1,3\]"),
        ((np.zeros((1, 3), np.float32),), {}, "ndarray"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_inputs_that_do_not_fit_are_named(args: Any, kwargs: Any, message: str, training: bool) -> None:
    module = linear().train(training)
    with pytest.raises(DataError, match=message):
        module(*args, **kwargs)


def test_open_dimension_stands_for_one_number() -> None:
    text = "g (float[N,3] x, float[N,3] z) => (float[N,2] y) { s = Add(x, z) y = MatMul(s, W) }"
    module = OnnxModule(from_text(text, {"W": np.ones((3, 2))}))
    with pytest.raises(DataError, match=r"input 'z' is float32\[1,3\].*N is 2"):
        module(torch.zeros(2, 3), torch.zeros(1, 3))


@pytest.mark.parametrize("training", [True, False])
def test_shape_that_an_operator_inside_refuses(training: bool, capfd: pytest.CaptureFixture[str]) -> None:
    text = "g (float[N,1,H,W] x) => (float[N,2] y) { f = Flatten(x) y = MatMul(f, W0) }"
    module = OnnxModule(from_text(text, {"W0": np.ones((16, 2))})).train(training)
    with pytest.raises(DataError, match=r"refuses its inputs \(x \[2, 1, 5, 5\]\): .*'MatMul_1'") as caught:
        module(torch.zeros(2, 1, 5, 5))
    assert "/" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert call(module, torch.zeros(2, 1, 4, 4)).shape == (2, 2)


def test_batch_of_one_that_is_built_in_is_said() -> None:
    text = "g (float[1,3] x) => (float[1,2] y) { y = MatMul(x, W) }"
    module = OnnxModule(from_text(text, {"W": np.ones((3, 2))}))
    with pytest.raises(DataError, match="batch is fixed to 1 in the model"):
        module(torch.zeros(2, 3))


# copies, export, and what is refused


def test_copies_are_independent_and_equal() -> None:
    module, _ = twins(freeze=["stem.bias"])
    x, labels = batch()
    backward(F.cross_entropy(call(module, x), labels))
    module.get_parameter("head.bias").requires_grad_(False)
    module.eval()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin.flat, module.flat)
        assert all(torch.equal(a, b) for a, b in zip(twin.buffers(), module.buffers(), strict=True))
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in module.parameters()]
        assert not twin.training
        assert torch.equal(call(twin, x), call(module, x))
        assert torch.equal(nn.utils.parameters_to_vector(twin.parameters()), twin.flat)
        with torch.no_grad():
            twin.flat.add_(1)
        assert not torch.equal(twin.flat, module.flat)


def test_state_dict_round_trip() -> None:
    (module, net), (other, _) = twins(0), twins(1)
    module.load_state_dict(other.state_dict())
    assert torch.equal(module.flat, other.flat)
    missing = module.load_state_dict({k: v for k, v in net.state_dict().items() if "num_batches" not in k})
    assert not missing.missing_keys
    close(module.get_parameter("mix.weight"), net.mix.weight)
    with pytest.raises(InputError, match="assign=True"):
        module.load_state_dict(other.state_dict(), assign=True)


def test_exported_model_holds_the_weights_of_today_and_shares_nothing() -> None:
    module, _ = twins()
    x, labels = batch()
    backward(F.cross_entropy(call(module, x), labels))
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    exported = module.to_onnx()
    onnx.checker.check_model(exported)
    weights = {t.name: numpy_helper.to_array(t) for t in exported.graph.initializer}
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
    assert [n.op_type for n in exported.graph.node] == [n.op_type for n in module.source.graph.node]
    first = {t.name: numpy_helper.to_array(t) for t in module.source.graph.initializer}
    assert not np.array_equal(first["head.weight"], weights["head.weight"])
    with torch.no_grad():
        module.flat.zero_()
    assert numpy_helper.to_array(next(t for t in exported.graph.initializer if t.name == "mix.weight")).any()


def test_moving_the_module_is_refused_by_ort_and_what_changes_nothing_is_not(engine: str) -> None:
    module = linear()
    before = module.flat.data_ptr()
    assert module.float().cpu().to("cpu").flat.data_ptr() == before
    with pytest.raises(InputError, match="trained in float32"):
        module.half()
    if engine == "ort":
        with pytest.raises(InputError, match=r"trains on cpu and cuda, not on meta\nUse engine torch"):
            module.to("meta")


def test_module_moves_with_its_gradients_and_statistics() -> None:
    module, _ = twins(engine="torch")
    x, labels = batch()
    backward(F.cross_entropy(call(module, x), labels))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    moved = module.to("meta")
    assert moved is module
    assert module.device.type == "meta"
    tensors = [*module.parameters(), *module.buffers(), *(p.grad for p in module.parameters() if p.grad is not None)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(optimizer.param_groups[0]["params"]) == len(list(module.parameters()))
    for mode in (True, False):  # inputs come along; off the CPU evaluation is the engine's
        output = call(module.train(mode), x)
        assert (output.device.type, tuple(output.shape)) == ("meta", (6, 5))
    backward(output.sum())


def test_module_made_on_a_device() -> None:
    module, _ = twins(engine="torch", device="meta")
    assert {tensor.device.type for tensor in (module.flat, *module.parameters(), *module.buffers())} == {"meta"}


def test_one_line_says_what_it_is() -> None:
    assert repr(linear()) == "OnnxModule(g: x: float32[N,3] -> y; 8 parameters)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "tpu"}, InputError, r"no engine 'tpu'\nChoose one of: auto, ort, torch"),
        (
            {"freeze": ["nothing*"]},
            InputError,
            "freeze pattern 'nothing\\*' matches none of the model's 2 float weights",
        ),
        ({"train": ["nothing"]}, InputError, "train pattern 'nothing' matches none"),
        ({"freeze": ["*"]}, ModelError, "nothing to train"),
    ],
)
def test_options_that_cannot_be_met(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear(**options)


def test_engines_by_name(engine: str) -> None:
    for given in (engine, "auto", EngineOptions(engine=engine)):
        module = linear(engine=given, threads=1)
        assert module.engine == engine
        assert call(module, torch.zeros(1, 3)).shape == (1, 2)


def test_model_without_a_trainable_weight() -> None:
    with pytest.raises(ModelError, match="no trainable float weights"):
        OnnxModule(from_text("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", {}))


def test_model_whose_outputs_have_no_gradient() -> None:
    text = "g (float[N,3] x) => (int64[N] y) { h = MatMul(x, W) y = ArgMax<axis=1, keepdims=0>(h) }"
    with pytest.raises(ModelError, match="no trainable weight reaches an output"):
        OnnxModule(from_text(text, {"W": np.ones((3, 2))}))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "double"])
def test_other_float_types_train_in_float32_masters_and_come_back_in_their_type(kind: str) -> None:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[N,3] x) => ({kind}[N,2] y) {{ y = MatMul(x, W) }}'
    )
    element = model.graph.input[0].type.tensor_type.elem_type
    values = np.array([[1, 2], [3, 4], [5, 6.0]]).astype(helper.tensor_dtype_to_np_dtype(element))
    model.graph.initializer.append(numpy_helper.from_array(values, "W"))
    module = OnnxModule(model)
    assert module.flat.dtype == torch.float32
    x = torch.ones(1, 3, dtype={"float16": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}[kind])
    assert torch.equal(call(module, x), torch.tensor([[9.0, 12]]))
    backward(call(module, x).sum())
    close(next(module.parameters()).grad, torch.ones(3, 2))
    with torch.no_grad():
        module.flat.add_(0.001)
    assert call(module.eval(), x)[0, 0].item() == pytest.approx(9.003, abs=1e-5)
    back = {tensor.name: tensor for tensor in module.to_onnx().graph.initializer}["W"]
    assert back.data_type == element
    assert np.array_equal(numpy_helper.to_array(back), (values.astype(np.float32) + 0.001).astype(values.dtype))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_takes_float32_inputs_too(kind: str) -> None:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[N,3] x) => ({kind}[N,2] y) {{ y = MatMul(x, W) }}'
    )
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), dtype), "W"))
    assert torch.equal(call(OnnxModule(model), torch.ones(1, 3)), torch.full((1, 2), 3.0))


def test_input_of_a_type_that_the_runtime_does_not_take() -> None:
    text = "g (string[N] name, float[N,3] x) => (float[N,2] y, string[N] z) { y = MatMul(x, W) z = Identity(name) }"
    with pytest.raises(ModelError, match="input 'name' is string, which the training runtime does not take"):
        OnnxModule(from_text(text, {"W": np.ones((3, 2))}))


def test_operator_that_the_runtime_does_not_know() -> None:
    text = "g (float[N,3] x) => (float[N,2] y, float[N,3] z) { y = MatMul(x, W) z = acme.Spin(x) }"
    model = from_text(text, {"W": np.ones((3, 2))})
    model.opset_import.append(helper.make_opsetid("acme", 1))
    module = OnnxModule(model)
    with pytest.raises(UnsupportedOperatorError, match="Spin"):
        module(torch.zeros(1, 3))
    with pytest.raises(ModelError, match=r"does not load the network.*Spin"):
        module.eval()(torch.zeros(1, 3))


def test_operator_without_a_gradient_is_refused_when_the_module_is_made() -> None:
    text = "g (float[N,3,3] x) => (float[N] y) { h = MatMul(x, W) y = acme.Spin(h) }"
    model = from_text(text, {"W": np.ones((3, 3))})
    model.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(UnsupportedOperatorError, match=r"Spin 'Spin_1' has no gradient"):
        OnnxModule(model)
