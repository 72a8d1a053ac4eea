"""How channels pass each operator behind a Concat: by removing an operand and comparing the numbers.

`k` joins `a` and `c` (four channels each); an operator or a chain reads it and a convolution follows. Where the
channels pass, `a` can be erased and the compact network gives the same; where they must not, there is a reason.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_asgnas.graph import normalise
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct
from tests.random_graphs import difference, outputs_of, zeroed

WEIGHTS = {
    **{name: (4, 4, 1, 1) for name in ("wa", "wc")},
    **{name: (3, 8, 1, 1) for name in ("end", "other")},
    **{name: (8,) for name in ("scale", "shift", "mean")},
    "depthwise": (8, 1, 3, 3),
    "twofold": (16, 1, 3, 3),
    "end2": (3, 16, 1, 1),
    "end6": (3, 6, 1, 1),
    "end9": (3, 9, 1, 1),
    "grouped": (8, 4, 1, 1),
    "up": (8, 3, 2, 2),
    "per_channel": (8, 1, 1),
    "slope": (8, 1, 1),
    "columns": (8, 3),
    "rows": (3, 8),
    "pixels": (3, 288),
    "bias3": (3,),
    "map": (8, 6, 6),
}

CONSTANTS = {
    "variance": np.linspace(0.5, 2, 8, dtype=np.float32),
    "two": np.float32(2),
    "scales": np.float32([1, 1, 2, 2]),
    "sizes": np.array([2, 8, 9, 12], np.int64),
    "to_rows": np.array([0, 8, 36], np.int64),
    "to_flat": np.array([0, 288], np.int64),
    "to_groups": np.array([0, 2, 4, 36], np.int64),
    "to_thirds": np.array([0, 3, 96], np.int64),
    "back": np.array([0, 8, 6, 6], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "channel_pads": np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64),
    "seven": np.float32(7),
    "axis1": np.array([1], np.int64),
    "two64": np.array([2], np.int64),
    "seven64": np.array([7], np.int64),
    "axes23": np.array([2, 3], np.int64),
}

ELEMENTWISE = [
    "Abs",
    "Asinh",
    "Atan",
    "Celu",
    "Elu",
    "Erf",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Neg",
    "Relu",
    "Selu",
    "Sin",
    "Sinh",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
]

PASS = {
    **{op: f"r = {op} (k)  y = Conv (r, end)" for op in ELEMENTWISE},
    "Conv alone": "y = Conv (k, end)",
    "two readers": "r = Relu (k)  u = Conv (k, end)  v = Conv (r, other)  y = Add (u, v)",
    "BatchNormalization": "r = BatchNormalization (k, scale, shift, mean, variance)  y = Conv (r, end)",
    "Sigmoid and BN": """s = Sigmoid (k)  r = BatchNormalization (s, scale, shift, mean, variance)
                         y = Conv (r, end)""",
    "depthwise Conv": "r = Conv <group = 8, pads = [1,1,1,1]> (k, depthwise, shift)  y = Conv (r, end)",
    "depthwise Conv with a multiplier": "r = Conv <group = 8, pads = [1,1,1,1]> (k, twofold)  y = Conv (r, end2)",
    "ConvTranspose": "y = ConvTranspose <strides = [2, 2]> (k, up)",
    "gate": "s = Sigmoid (k)  r = Mul (k, s)  y = Conv (r, end)",
    "squeeze and excitation": """g = GlobalAveragePool (k)  s = HardSigmoid (g)  r = Mul (k, s)
                                 y = Conv (r, end)""",
    "scale": "r = Mul (k, per_channel)  y = Conv (r, end)",
    "bias": "r = Add (k, per_channel)  y = Conv (r, end)",
    "constant factor": "r = Mul (k, two)  y = Conv (r, end)",
    "constant divisor": "r = Div (k, two)  y = Conv (r, end)",
    "square": "r = Pow (k, two)  y = Conv (r, end)",
    "PRelu": "r = PRelu (k, slope)  y = Conv (r, end)",
    "added to itself": "q = Relu (k)  r = Add (k, q)  y = Conv (r, end)",
    "Max with its own": "q = Neg (k)  r = Max (k, q)  y = Conv (r, end)",
    "mean taken off, then BN": """s = Sub (k, per_channel)
        r = BatchNormalization (s, scale, shift, mean, variance)  y = Conv (r, end)""",
    "AveragePool": "r = AveragePool <kernel_shape = [2, 2]> (k)  y = Conv (r, end)",
    "MaxPool": "r = MaxPool <kernel_shape = [2, 2]> (k)  y = Conv (r, end)",
    "GlobalMaxPool": "r = GlobalMaxPool (k)  y = Conv (r, end)",
    "Resize by scales": "r = Resize <mode = \"linear\"> (k, , scales)  y = Conv (r, end)",
    "Resize by sizes": "r = Resize <mode = \"nearest\"> (k, , , sizes)  y = Conv (r, end)",
    "Pad": "r = Pad (k, pads)  y = Conv (r, end)",
    "Dropout": "r, m = Dropout (k)  y = Conv (r, end)",
    "Cast there and back": "s = Cast <to = 11> (k)  r = Cast <to = 1> (s)  y = Conv (r, end)",
    "Flatten and Gemm": "r = Flatten (k)  y = Gemm <transB = 1> (r, pixels, bias3)",
    "Reshape and Gemm": "r = Reshape (k, to_flat)  y = Gemm <transB = 1> (r, pixels, bias3)",
    "Reshape and back": "s = Reshape (k, to_rows)  r = Reshape (s, back)  y = Conv (r, end)",
    "rows and MatMul": "s = Reshape (k, to_rows)  r = Transpose <perm = [0, 2, 1]> (s)  y = MatMul (r, columns)",
    "ReduceMean over pixels": "s = ReduceMean <axes = [2, 3]> (k)  y = Conv (s, end)",
    "ReduceSum over pixels": "s = ReduceSum <keepdims = 0> (k, axes23)  y = MatMul (s, columns)",
    "Squeeze and Unsqueeze": """g = GlobalAveragePool (k)  s = Squeeze (g, axes23)  u = Unsqueeze (s, axes23)
                                y = Conv (u, end)""",
    "pooled Gemm": "g = GlobalAveragePool (k)  f = Flatten (g)  y = Gemm <transB = 1> (f, rows)",
    "Pad of channels": "r = Pad (k, channel_pads)  y = Conv (r, end9)",
    "Slice": "r = Slice (k, axis1, seven64, axis1)  y = Conv (r, end6)",
    "a map per channel": "r = Add (k, map)  y = Conv (r, end)",
    "nested Concat": "l = Concat <axis = 1> (k, x, x)  r = Relu (l)  y = Conv (r, end2)",
}  # fmt: skip

STAY = {
    "output": ("y = Relu (k)", "graph output y"),
    "Sigmoid": ("r = Sigmoid (k)  y = Conv (r, end)", "is not zero"),
    "Exp": ("r = Exp (k)  y = Conv (r, end)", "is not zero"),
    "Log": ("r = Log (k)  y = Conv (r, end)", "not finite at zero"),
    "Reciprocal": ("r = Reciprocal (k)  y = Conv (r, end)", "not finite at zero"),
    "own norm": ("q = Abs (k)  r = Div (k, q)  y = Conv (r, end)", "not finite at zero"),
    "mean taken off": ("r = Sub (k, per_channel)  y = Conv (r, end)", "is not zero"),
    "grouped Conv": ("r = Conv <group = 2> (k, grouped)  y = Conv (r, end)", "tied to those of 'wc'"),
    "Softmax": ("r = Softmax <axis = 1> (k)  y = Conv (r, end)", "Softmax"),
    "ReduceMax": ("y = ReduceMax <axes = [1]> (k)", "runs over channels"),
    "LayerNormalization": (
        "t = Transpose <perm = [0, 2, 3, 1]> (k)  y = LayerNormalization (t, scale, shift)",
        "LayerNormalization",
    ),
    "LRN": ("r = LRN <size = 3> (k)  y = Conv (r, end)", "LRN"),
    "Pad that repeats channels": (
        "r = Pad <mode = \"edge\"> (k, channel_pads)  y = Conv (r, end9)",
        "Pad along the channels",
    ),
    "Pad with a value": ("r = Pad (k, pads, seven)  y = Conv (r, end)", "is not zero"),
    "groups of channels": (
        "s = Reshape (k, to_groups)  q = Relu (s)  r = Reshape (q, back)  y = Conv (r, end)",
        "tied to those of 'wc'",
    ),
    "thirds of eight channels": (
        "s = Reshape (k, to_thirds)  q = Relu (s)  r = Reshape (q, back)  y = Conv (r, end)",
        "do not divide each other",
    ),
    "every second one": (
        """r = Slice (k, axis1, seven64, axis1, two64)  q = ReduceMean <axes = [1]> (r)
           u = Conv (k, end)  y = Add (q, u)""",
        "a step",
    ),
    "tied to what stays": ("d = Conv (x, grouped4)  l = Concat <axis = 1> (d, x)  r = Add (k, l)  y = Conv (r, end)",
                           "tied to those of"),
    "a weight that others read": ("y0 = Conv (k, end)  f = ReduceSum (end)  y = Add (y0, f)", "as it is"),
}  # fmt: skip


def model_of(text: str, batch: str = "2") -> onnx.ModelProto:
    head = f"""<ir_version: 8, opset_import: ["" : 17]> agraph (float[{batch}, 4, 6, 6] x) => (float[d0] y)"""
    first = "a = Conv (x, wa)  c = Conv (x, wc)  k = Concat <axis = 1> (a, c)  "
    model = onnx.parser.parse_model(f"{head} {{ {first} {text} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in model.graph.node for name in node.input}
    random = np.random.default_rng(0)
    more = {"grouped4": (4, 4, 1, 1)}
    arrays = {n: random.normal(size=s).astype(np.float32) for n, s in (WEIGHTS | more).items()} | CONSTANTS
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items() if name in read
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("case", PASS)
def test_channels_pass(case: str) -> None:
    model = model_of(PASS[case])
    space = analyze(model)
    structures = {s.tensor: s for s in space.structures}
    assert structures["a"].erasable, structures["a"].reason
    for tensor in ("a", "c"):
        full = zeroed(normalise(model), [structures[tensor].group])
        compact = construct(full, space)
        assert difference(outputs_of(full), outputs_of(compact)) <= 1e-5
        assert difference(outputs_of(model), outputs_of(full)) > 1e-3
        left = {t.name: list(t.dims) for t in compact.graph.initializer}
        assert not {"wa" if tensor == "a" else "wc"} & set(left)
        before = {t.name: list(t.dims) for t in normalise(model).graph.initializer}
        assert any(left[name] != before.get(name) for name in left)


@pytest.mark.parametrize("case", STAY)
def test_channels_that_must_stay_have_a_reason(case: str) -> None:
    text, reason = STAY[case]
    structures = {s.tensor: s for s in analyze(model_of(text)).structures}
    assert not structures["a"].erasable
    assert reason in structures["a"].reason


def test_a_length_that_is_computed_with_keeps_the_channels_unless_it_is_a_number() -> None:
    """With an open batch the Shape stays in the graph; with a fixed one it was folded to the full network's numbers."""
    text = """s = Shape (k)  r = Conv (k, end)  p = Cast <to = 1> (s)  q = ReduceSum (p)  y = Add (r, q)"""
    for batch, erasable in (("N", False), ("2", True)):
        model = model_of(text, batch)
        structure = next(s for s in analyze(model).structures if s.tensor == "a")
        assert structure.erasable == erasable
        if erasable:
            full = zeroed(normalise(model), [structure.group])
            assert difference(outputs_of(full), outputs_of(construct(full))) <= 1e-5
        else:
            assert "the length of this axis is computed with" in structure.reason
