"""A case for every entry of the registry: a node with its inputs, and what zeros give zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.operators import control, entries, fused, layout, opaque

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A node: `data` are activations by position, `constants` initializers; `keeps` sets of zeros that give zero."""

    op_type: str
    data: dict[int, tuple[int, ...]]
    constants: dict[int, Array] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    keeps: tuple[tuple[int, ...], ...] = ()
    opset: int = 17
    integers: tuple[int, ...] = ()
    booleans: tuple[int, ...] = ()
    bytes_: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    positive: bool = False
    domain: str = ""
    runs: bool = True
    """Is there a kernel for it on a CPU, for an operator that is not the standard's."""

    def __str__(self) -> str:
        notes = [f"{k}={v}" for k, v in self.attributes.items()] + [f"{self.outputs} outputs"] * (self.outputs > 1)
        name = f"{self.domain}.{self.op_type}".strip(".")
        return f"{name}-{self.opset} {' '.join(notes)}".strip()


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).uniform(0.5, 2, shape).astype(np.float32)


def quantisation(*positions: int, zero: bool = False) -> dict[int, Array]:
    """Scales at these positions, or zero points."""
    return {p: np.asarray(np.uint8(3) if zero else np.float32(0.1)) for p in positions}


def runtimes(
    op_type: str,
    data: dict[int, tuple[int, ...]],
    constants: dict[int, Array] | None = None,
    attributes: dict[str, Any] | None = None,
    keeps: tuple[tuple[int, ...], ...] = (),
    **more: Any,
) -> Case:
    """A case of one of onnxruntime's own operators."""
    return Case(op_type, data, constants or {}, attributes or {}, keeps=keeps, domain="com.microsoft", **more)


ELEMENTWISE = [
    "Abs",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Elu",
    "Erf",
    "Floor",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Sign",
    "Sin",
    "Sinh",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Dropout",
]
NOT_ZERO = [
    "Acos",
    "Acosh",
    "Cos",
    "Cosh",
    "Exp",
    "HardSigmoid",
    "Log",
    "Reciprocal",
    "Sigmoid",
    "Softplus",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
]
REDUCING = ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceSumSquare"]
REDUCING_ANY = ["ReduceProd", "ReduceLogSum", "ReduceLogSumExp"]
IMAGE = (2, 4, 6, 6)

CASES = [
    *(Case(op, {0: (2, 3)}, keeps=((0,),)) for op in ELEMENTWISE),
    *(Case(op, {0: (2, 3)}, positive=True) for op in NOT_ZERO),
    *(Case(op, {0: IMAGE}, attributes={"axes": [1, 2]}, keeps=((0,),)) for op in REDUCING),
    *(Case(op, {0: (2, 3)}, attributes={"axes": [1]}, positive=True) for op in REDUCING_ANY),
    Case("ReduceSum", {0: IMAGE}, {1: ints(1)}, {"keepdims": 0}, keeps=((0,),)),
    Case("Mish", {0: (2, 3)}, keeps=((0,),), opset=18),
    Case("Gelu", {0: (2, 3)}, keeps=((0,),), opset=20),
    Case("Swish", {0: (2, 3)}, keeps=((0,),), opset=24),
    Case("Dropout", {0: (2, 3)}, outputs=2),
    Case("Cast", {0: (2, 3)}, attributes={"to": TensorProto.DOUBLE}, keeps=((0,),)),
    Case("CastLike", {0: (2, 3), 1: (2,)}, keeps=((0,),)),
    Case("Not", {0: (2, 3)}, booleans=(0,)),
    Case("ThresholdedRelu", {0: (2, 3)}, attributes={"alpha": -1.0}, keeps=((0,),)),
    Case("Clip", {0: (2, 3)}, {1: np.float32(-1), 2: np.float32(1)}, keeps=((0,),)),
    Case("Clip", {0: (2, 3)}, {1: np.float32(0.5)}),
    Case("Clip", {0: (2, 3)}, attributes={"min": -1.0, "max": -0.5}, opset=10),
    Case("Clip", {0: (2, 3), 1: ()}),
    Case("PRelu", {0: IMAGE}, {1: floats(4, 1, 1)}, keeps=((0,),)),
    Case("PRelu", {0: IMAGE}, {1: floats(1)}, keeps=((0,),)),
    Case("Add", {0: (2, 3), 1: (2, 3)}, keeps=((0, 1),)),
    Case("Add", {0: (2, 3)}, {1: floats(3)}, keeps=((0, 1),)),
    Case("Sum", {0: (2, 3), 1: (3,), 2: (1, 3)}, keeps=((0, 1, 2),)),
    Case("Sub", {0: (2, 3), 1: (3,)}, keeps=((0, 1),)),
    Case("Mul", {0: (2, 3), 1: (3,)}, keeps=((0,), (1,))),
    Case("Mul", {0: (2, 3)}, {1: floats(3)}, keeps=((0,), (1,))),
    Case("Div", {0: (2, 3)}, {1: floats(3)}, keeps=((0,),)),
    Case("Div", {0: (2, 3), 1: (3,)}),
    Case("Pow", {0: (2, 3)}, {1: np.float32(2)}, keeps=((0,),)),
    Case("Pow", {0: (2, 3)}, {1: np.float32(-1)}, positive=True),
    Case("Pow", {0: (2, 3), 1: (3,)}, positive=True),
    Case("Max", {0: (2, 3), 1: (3,)}, keeps=((0, 1),)),
    Case("Max", {0: (2, 3)}, {1: np.float32(0)}, keeps=((0,),)),
    Case("Max", {0: (2, 3)}, {1: np.float32(0.5)}),
    Case("Min", {0: (2, 3)}, {1: np.float32([6, 0, 1])}, keeps=((0,),)),
    Case("Min", {0: (2, 3)}, {1: np.float32([6, -1, 1])}),
    Case("Min", {0: (2, 3), 1: (3,), 2: (3,)}, keeps=((0, 1, 2),)),
    Case("Where", {0: (2, 3), 1: (2, 3), 2: (2, 3)}, keeps=((1, 2), (0, 1, 2)), booleans=(0,)),
    *(Case(op, {0: (2, 3), 1: (2, 3)}) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(Case(op, {0: (2, 3), 1: (2, 3)}, booleans=(0, 1)) for op in ("And", "Or", "Xor")),
    Case("IsNaN", {0: (2, 3)}),
    Case("IsInf", {0: (2, 3)}),
    Case("Conv", {0: IMAGE}, {1: floats(3, 4, 3, 3), 2: floats(3)}, keeps=((1, 2), (0, 2), (0, 1, 2))),
    Case("Conv", {0: IMAGE}, {1: floats(8, 2, 1, 1)}, {"group": 2}, keeps=((0,), (1,))),
    Case("ConvTranspose", {0: IMAGE}, {1: floats(4, 3, 2, 2), 2: floats(3)}, keeps=((1, 2), (0, 2))),
    Case("Gemm", {0: (2, 4)}, {1: floats(3, 4), 2: floats(3)}, {"transB": 1}, keeps=((1, 2), (0, 2))),
    Case("Gemm", {0: (2, 4), 1: (4, 3)}, keeps=((0,), (1,))),
    Case("MatMul", {0: (2, 5, 4)}, {1: floats(4, 3)}, keeps=((0,), (1,))),
    Case("MatMul", {0: (2, 5, 4), 1: (2, 4, 5)}, keeps=((0,), (1,))),
    Case(
        "BatchNormalization",
        {0: IMAGE},
        {1: floats(4), 2: floats(4), 3: floats(4), 4: floats(4)},
        keeps=((1, 2), (0, 1, 2)),
    ),
    Case("LayerNormalization", {0: (2, 5, 4)}, {1: floats(4), 2: floats(4)}, keeps=((1, 2),)),
    Case("LayerNormalization", {0: (2, 5, 4)}, {1: floats(4)}, keeps=((1,),)),
    Case("LayerNormalization", {0: (2, 5, 4)}, {1: floats(4), 2: floats(4)}, outputs=2),
    Case("InstanceNormalization", {0: IMAGE}, {1: floats(4), 2: floats(4)}, keeps=((1, 2),)),
    Case("GroupNormalization", {0: IMAGE}, {1: floats(4), 2: floats(4)}, {"num_groups": 2}, keeps=((1, 2),), opset=21),
    Case("LRN", {0: IMAGE}, attributes={"size": 3}, keeps=((0,),)),
    *(
        Case(op, {0: IMAGE}, attributes={"kernel_shape": [3, 3], "pads": [1] * 4}, keeps=((0,),))
        for op in ("AveragePool", "MaxPool", "LpPool")
    ),
    Case("MaxPool", {0: IMAGE}, attributes={"kernel_shape": [3, 3]}, outputs=2),
    *(Case(op, {0: IMAGE}, keeps=((0,),)) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    Case("Resize", {0: IMAGE}, {2: np.float32([1, 1, 2, 2])}, {"mode": "linear"}, keeps=((0,),)),
    Case("Resize", {0: IMAGE}, {3: ints(2, 4, 9, 5)}, keeps=((0,),)),
    Case(
        "Resize",
        {0: IMAGE},
        {1: np.float32([0, 0, 0, 0, 1, 1, 2, 2]), 2: np.float32([1, 1, 2, 2])},
        {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0, "mode": "linear"},
    ),
    Case("Upsample", {0: IMAGE}, {1: np.float32([1, 1, 2, 2])}, keeps=((0,),), opset=9),
    Case("Concat", {0: (2, 3), 1: (2, 5)}, attributes={"axis": 1}, keeps=((0, 1),)),
    Case("Flatten", {0: IMAGE}, keeps=((0,),)),
    Case("Reshape", {0: IMAGE}, {1: ints(0, -1)}, keeps=((0,),)),
    Case("Squeeze", {0: (2, 1, 3)}, {1: ints(1)}, keeps=((0,),)),
    Case("Unsqueeze", {0: (2, 3)}, {1: ints(1)}, keeps=((0,),)),
    Case("Transpose", {0: (2, 3)}, keeps=((0,),)),
    Case("Expand", {0: (2, 1)}, {1: ints(2, 3)}, keeps=((0,),)),
    Case("Tile", {0: (2, 1)}, {1: ints(1, 3)}, keeps=((0,),)),
    Case("Slice", {0: (2, 5)}, {1: ints(1), 2: ints(4), 3: ints(1)}, keeps=((0,),)),
    Case("Gather", {0: (2, 5)}, {1: ints(1, 0)}, keeps=((0,),)),
    Case("GatherElements", {0: (2, 5)}, {1: np.zeros((2, 5), np.int64)}, keeps=((0,),)),
    Case("GatherND", {0: (2, 5)}, {1: np.ones((2, 1), np.int64)}, keeps=((0,),)),
    Case("Split", {0: (2, 6)}, {1: ints(2, 4)}, {"axis": 1}, outputs=2, keeps=((0,),)),
    Case("DepthToSpace", {0: IMAGE}, attributes={"blocksize": 2}, keeps=((0,),)),
    Case("SpaceToDepth", {0: IMAGE}, attributes={"blocksize": 2}, keeps=((0,),)),
    Case("Pad", {0: (2, 3)}, {1: ints(0, 1, 0, 1)}, keeps=((0,),)),
    Case("Pad", {0: (2, 3)}, {1: ints(0, 1, 0, 1), 2: np.float32(3)}),
    Case("Pad", {0: (2, 3)}, {1: ints(0, 1, 0, 1), 2: np.float32(3)}, {"mode": "reflect"}, keeps=((0,),)),
    Case("Pad", {0: (2, 3)}, attributes={"pads": [0, 1, 0, 1], "value": 2.0}, opset=10),
    Case("Shape", {0: (2, 3)}),
    Case("Size", {0: (2, 3)}),
    Case("ConstantOfShape", {0: (2,)}, attributes={"value": helper.make_tensor("v", 1, [1], [2.0])}, integers=(0,)),
    Case("ConstantOfShape", {0: (2,)}, integers=(0,), keeps=((), (0,))),
    Case("Range", {0: (), 1: (), 2: ()}, integers=(0, 1, 2)),
    Case("ArgMax", {0: (2, 3)}),
    Case("ArgMin", {0: (2, 3)}),
    Case("CumSum", {0: (2, 3)}, {1: np.int64(1)}),
    Case("TopK", {0: (2, 3)}, {1: ints(2)}, outputs=2),
    Case("Shrink", {0: (2, 3)}, keeps=((0,),)),
    Case("Shrink", {0: (2, 3)}, attributes={"lambd": -1.0, "bias": 0.5}),
    Case("Mean", {0: (2, 3), 1: (3,)}, keeps=((0, 1),)),
    Case("Mod", {0: (2, 3), 1: (3,)}, attributes={"fmod": 1}, positive=True),
    Case("SwiGLU", {0: (2, 3), 1: (2, 3)}, keeps=((0,), (1,)), opset=28),
    Case("BitwiseAnd", {0: (2,), 1: (2,)}, keeps=((0,), (1,)), integers=(0, 1), opset=18),
    *(Case(op, {0: (2,), 1: (2,)}, keeps=((0, 1),), integers=(0, 1), opset=18) for op in ("BitwiseOr", "BitwiseXor")),
    Case("BitwiseNot", {0: (2,)}, integers=(0,), opset=18),
    Case("BitShift", {0: (2, 3), 1: (2, 3)}, attributes={"direction": "LEFT"}, keeps=((0,),), bytes_=(0, 1)),
    Case("BitCast", {0: (2, 3)}, attributes={"to": TensorProto.INT32}, opset=26),
    Case("CumProd", {0: (2, 3)}, {1: np.int64(1)}, keeps=((0,),), opset=26),
    Case("CumProd", {0: (2, 3)}, {1: np.int64(1)}, {"exclusive": 1}, opset=26),
    Case("Trilu", {0: (2, 4, 4)}, keeps=((0,),)),
    Case("Einsum", {0: (2, 3, 4), 1: (4, 5)}, attributes={"equation": "abc,cd->abd"}, keeps=((0,), (1,))),
    Case("Det", {0: (2, 3, 3)}, keeps=((0,),)),
    Case("DFT", {0: (2, 6, 1)}, attributes={"axis": 1}, keeps=((0,),)),
    Case("DFT", {0: (2, 6, 1)}, {2: np.int64(1)}, keeps=((0,),), opset=20),
    Case("STFT", {0: (2, 16, 1)}, {1: np.int64(4), 2: floats(8)}, keeps=((0,),)),
    Case("CenterCropPad", {0: IMAGE}, {1: ints(8, 4)}, {"axes": [2, 3]}, keeps=((0,),), opset=18),
    Case(
        "DeformConv",
        {0: IMAGE, 2: (2, 8, 5, 5)},
        {1: floats(3, 4, 2, 2), 3: floats(3)},
        {"kernel_shape": [2, 2]},
        keeps=((0, 3), (1, 3)),
        opset=19,
    ),
    Case(
        "CausalConvWithState",
        {0: (2, 4, 6)},
        {1: floats(4, 1, 3), 2: floats(4)},
        {"activation": "silu"},
        outputs=2,
        keeps=((0, 2),),
        opset=27,
    ),
    Case("LpNormalization", {0: (2, 3)}, keeps=((0,),), opset=22),
    Case("LpNormalization", {0: (2, 3)}),
    Case("MeanVarianceNormalization", {0: IMAGE}),
    Case("RMSNormalization", {0: (2, 5, 4)}, {1: floats(4)}, keeps=((0,), (1,)), opset=23),
    Case("SimplifiedLayerNormalization", {0: (2, 5, 4)}, {1: floats(4)}, keeps=((0,), (1,))),
    Case("GridSample", {0: IMAGE, 1: (2, 3, 3, 2)}, keeps=((0,),)),
    Case("RoiAlign", {0: IMAGE}, {1: np.float32([[0, 0, 4, 4]]), 2: ints(0)}, keeps=((0,),)),
    Case("MaxRoiPool", {0: IMAGE}, {1: np.float32([[0, 0, 0, 4, 4]])}, {"pooled_shape": [2, 2]}, keeps=((0,),)),
    Case("QuantizeLinear", {0: (2, 3)}, {1: np.float32(0.1), 2: np.int8(0)}, keeps=((0,),)),
    Case("DequantizeLinear", {0: (2, 3)}, {1: np.float32(0.1), 2: np.uint8(3)}, bytes_=(0,)),
    Case("DynamicQuantizeLinear", {0: (2, 3)}, outputs=3),
    Case("MatMulInteger", {0: (2, 4)}, {1: np.ones((4, 3), np.int8), 2: np.uint8(3)}, bytes_=(0,)),
    Case("ConvInteger", {0: IMAGE}, {1: np.ones((3, 4, 2, 2), np.uint8)}, bytes_=(0,)),
    Case(
        "QLinearConv",
        {0: IMAGE},
        {p: np.float32(0.1) for p in (1, 4, 6)}
        | {p: np.uint8(3) for p in (2, 5, 7)}
        | {3: np.ones((3, 4, 2, 2), np.uint8)},
        bytes_=(0,),
    ),
    Case(
        "QLinearMatMul",
        {0: (2, 4)},
        {p: np.float32(0.1) for p in (1, 4, 6)} | {p: np.uint8(3) for p in (2, 5, 7)} | {3: np.ones((4, 3), np.uint8)},
        bytes_=(0,),
    ),
    Case(
        "Attention",
        {0: (2, 5, 8), 1: (2, 6, 8), 2: (2, 6, 4)},
        attributes={"q_num_heads": 2, "kv_num_heads": 2},
        keeps=((2,), (1, 2)),
        opset=23,
    ),
    Case("Attention", {p: (2, 2, 5, 4) for p in range(3)}, outputs=3, opset=23),
    Case("RotaryEmbedding", {0: (2, 2, 5, 4)}, {1: floats(2, 5, 2), 2: floats(2, 5, 2)}, keeps=((0,),), opset=23),
    Case(
        "LinearAttention",
        {0: (2, 5, 8), 1: (2, 5, 8), 2: (2, 5, 4)},
        attributes={"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"},
        outputs=2,
        opset=27,
    ),
    *(
        Case(
            op,
            {0: (5, 2, 3)},
            {1: floats(1, gates * 4, 3), 2: floats(1, gates * 4, 4), 3: floats(1, gates * 8), 5: floats(1, 2, 4)},
            {"hidden_size": 4},
            keeps=((1, 2, 3, 5),),
        )
        for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    ),
    Case(
        "RNN",
        {0: (5, 2, 3)},
        {1: floats(1, 4, 3), 2: floats(1, 4, 4)},
        {"hidden_size": 4, "activations": ["Sigmoid"]},
    ),
    *(runtimes(op, {0: (2, 3)}, keeps=((0,),)) for op in ("Gelu", "QuickGelu", "FastGelu")),
    runtimes("BiasGelu", {0: (2, 3)}, {1: floats(3)}, keeps=((0, 1),)),
    runtimes("BiasAdd", {0: (2, 5, 320), 2: (2, 5, 320)}, {1: floats(320)}, keeps=((0, 1, 2),), runs=False),
    runtimes(
        "FusedConv",
        {0: IMAGE, 3: (2, 3, 6, 6)},
        {1: floats(3, 4, 1, 1), 2: floats(3)},
        {"activation": "Relu"},
        keeps=((0, 2, 3), (1, 2, 3)),
    ),
    runtimes("FusedConv", {0: IMAGE}, {1: floats(3, 4, 1, 1)}, {"activation": "Sigmoid"}),
    runtimes(
        "FusedGemm",
        {0: (2, 4)},
        {1: floats(4, 3), 2: floats(3)},
        {"activation": "LeakyRelu", "activation_alpha": 0.1},
        keeps=((0, 2), (1, 2)),
    ),
    *(
        runtimes(op, {0: (4, 2)}, {1: floats(4, 3)}, {"transA": 1}, keeps=((0,), (1,)))
        for op in ("FusedMatMul", "TransposeMatMul")
    ),
    runtimes("GemmFastGelu", {0: (2, 4)}, {1: floats(4, 3), 2: floats(3)}, keeps=((0, 2), (1, 2)), runs=False),
    runtimes("SkipLayerNormalization", {0: (2, 5, 4), 1: (2, 5, 4)}, {2: floats(4), 3: floats(4)}),
    runtimes("SkipSimplifiedLayerNormalization", {0: (2, 5, 4), 1: (2, 5, 4)}, {2: floats(4)}),
    runtimes(
        "MultiHeadAttention", {0: (2, 5, 8), 1: (2, 6, 8), 2: (2, 6, 8)}, {3: floats(24)}, {"num_heads": 2}, ((2, 3),)
    ),
    runtimes("Attention", {0: (2, 5, 4)}, {1: floats(4, 24), 2: floats(24)}, {"num_heads": 2}, ((0, 2), (1, 2))),
    runtimes(
        "GroupQueryAttention",
        {0: (1, 5, 64), 1: (1, 5, 32), 2: (1, 5, 32)},
        {5: np.array([4], np.int32), 6: np.array([5], np.int32)},
        {"num_heads": 4, "kv_num_heads": 2},
        ((2,),),
        runs=False,
    ),
    runtimes("RotaryEmbedding", {0: (2, 5, 8)}, {1: ints(0), 2: floats(5, 2), 3: floats(5, 2)}, keeps=((0,),)),
    runtimes("QuantizeLinear", {0: (2, 3)}, {1: np.float32(0.1), 2: np.int16(0)}, keeps=((0,),)),
    runtimes("DequantizeLinear", {0: (2, 3)}, {1: np.float32(0.1), 2: np.uint8(3)}, bytes_=(0,)),
    *(
        runtimes(op, {0: (2, 3), 3: (2, 3)}, quantisation(1, 4, 6) | quantisation(2, 5, 7, zero=True), bytes_=(0, 3))
        for op in ("QLinearAdd", "QLinearMul")
    ),
    runtimes("QLinearLeakyRelu", {0: (2, 3)}, quantisation(1, 3) | quantisation(2, 4, zero=True), bytes_=(0,)),
    runtimes("QLinearSigmoid", {0: (2, 3)}, quantisation(1, 3) | quantisation(2, 4, zero=True), bytes_=(0,)),
    runtimes(
        "QLinearAveragePool",
        {0: IMAGE},
        quantisation(1, 3) | quantisation(2, 4, zero=True),
        {"kernel_shape": [2, 2]},
        bytes_=(0,),
    ),
    runtimes("QLinearGlobalAveragePool", {0: IMAGE}, quantisation(1, 3) | quantisation(2, 4, zero=True), bytes_=(0,)),
    runtimes(
        "QLinearConcat",
        {2: (2, 3), 5: (2, 4)},
        quantisation(0, 3, 6) | quantisation(1, 4, 7, zero=True),
        {"axis": 1},
        bytes_=(2, 5),
    ),
    runtimes(
        "QGemm",
        {0: (2, 4)},
        quantisation(1, 4, 7) | quantisation(2, 5, 8, zero=True) | {3: np.ones((4, 3), np.uint8)},
        bytes_=(0,),
    ),
    runtimes(
        "MatMulNBits",
        {0: (2, 32)},
        {1: np.ones((4, 2, 8), np.uint8), 2: floats(8)},
        {"N": 4, "K": 32, "bits": 4, "block_size": 16},
    ),
    runtimes(
        "MatMulIntegerToFloat",
        {0: (2, 4)},
        {1: np.ones((4, 3), np.int8), 2: np.float32(0.1), 3: np.float32(0.1), 4: np.uint8(3)},
        bytes_=(0,),
    ),
    runtimes(
        "DynamicQuantizeMatMul",
        {0: (2, 4)},
        {1: np.ones((4, 3), np.int8), 2: np.float32(0.1), 3: np.int8(0)},
        keeps=((0,),),
    ),
    runtimes(
        "EmbedLayerNormalization",
        {0: (2, 5)},
        {2: floats(9, 4), 3: floats(9, 4), 5: floats(4), 6: floats(4)},
        outputs=2,
        ids=(0,),
    ),
]
"""A case for every entry, with the variants that its rule tells apart."""

WITHOUT_INPUTS = {"Constant"}
STAY_WHOLE = {
    control.control_flow,
    fused.not_taken_apart,
    layout.rearrange,
    opaque.learned_elsewhere,
    opaque.like,
    opaque.opaque,
    opaque.preview,
}
"""Declarations that keep all that they read."""
KEPT = [e for e in entries() if e.declare in STAY_WHOLE] + [
    e for e in entries() if e.op_type in ("AffineGrid", "Col2Im", "MaxUnpool", "STFT")
]


def model_of(case: Case) -> onnx.ModelProto:
    """A model of this one node; its data are graph inputs."""
    count = max([*case.data, *case.constants], default=-1) + 1
    names = [f"in{p}" if p in case.data or p in case.constants else "" for p in range(count)]
    outputs = [f"out{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op_type, names, outputs, name="node", domain=case.domain, **case.attributes)
    kind = {p: TensorProto.INT64 if p in case.integers else TensorProto.FLOAT for p in case.data}
    kind |= dict.fromkeys(case.booleans, TensorProto.BOOL) | dict.fromkeys(case.bytes_, TensorProto.UINT8)
    kind |= dict.fromkeys(case.ids, TensorProto.INT32)
    inputs = [helper.make_tensor_value_info(f"in{p}", kind[p], shape) for p, shape in case.data.items()]
    weights = [numpy_helper.from_array(np.asarray(v), f"in{p}") for p, v in case.constants.items()]
    graph = helper.make_graph([node], "case", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], weights)
    opsets = [helper.make_opsetid("", case.opset)] + [helper.make_opsetid(case.domain, 1)] * bool(case.domain)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
