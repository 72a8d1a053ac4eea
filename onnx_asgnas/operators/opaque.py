"""Operators that channels do not pass: what they read stays, and the report says why.

They pick, count, draw, compare or look values up, or work on sequences, text and tables of trees.
"""

from __future__ import annotations

from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, register

_STANDARD = {
    "makes numbers from it": ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
    "draws random numbers by it": ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"),
    "picks by value": ("NonMaxSuppression", "NonZero", "OneHot"),
    "compares all classes": ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    "keeps it in a sequence": (
        "ConcatFromSequence",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
    ),
    "wraps it as an optional": ("Optional", "OptionalGetElement", "OptionalHasElement"),
    "works on text or counts": (
        "ImageDecoder",
        "RegexFullMatch",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
    ),
    "writes it into a cache": ("TensorScatter",),
}
_LEARNING = (
    "ArrayFeatureExtractor",
    "Binarizer",
    "CastMap",
    "CategoryMapper",
    "DictVectorizer",
    "FeatureVectorizer",
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "OneHotEncoder",
    "SVMClassifier",
    "SVMRegressor",
    "Scaler",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "ZipMap",
)
_REASONS = {op_type: reason for reason, op_types in _STANDARD.items() for op_type in op_types}


@register(*_REASONS)
def opaque(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/: is not taken apart."""
    return _opaque(op, _REASONS[op.node.op_type])


@register(*_LEARNING, domain="ai.onnx.ml")
def learned_elsewhere(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/index.html#ai-onnx-ml: is not taken apart."""
    return _opaque(op, "is not a layer of a network")


@register("FlexAttention", domain="ai.onnx.preview")
@register("Adagrad", "Adam", "Gradient", "Momentum", domain="ai.onnx.preview.training")
def preview(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/index.html#ai-onnx-preview: is not taken apart."""
    return _opaque(op, "is not taken apart")


@register("EyeLike", "RandomNormalLike", "RandomUniformLike")
def like(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__EyeLike.html and its siblings: know the shape of their input only."""
    reason = f"{op.node.op_type} makes a tensor of their length"
    return Rule(labels=lambda flow: flow.freeze_inputs(reason), shape_only=True)


def _opaque(op: Op, reason: str) -> Rule:
    def labels(flow: LabelFlow) -> None:
        flow.freeze_inputs(f"{op.node.op_type} {reason}")

    return Rule(labels=labels)
