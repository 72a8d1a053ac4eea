"""scikit-learn: a pickled estimator `sklearn:FILE.joblib`, or a factory `sklearn:package.module:name`.

Multi-layer perceptrons, linear models, and pipelines of them with scalers. A classifier gives its label and its
probabilities, which is one tensor, not a list of dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.converters.export import OPSET, Array, Export, Source, record
from onnx_asgnas.converters.factories import build, refuse_pickle
from onnx_asgnas.converters.failing import exporter_failed, first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.errors import ConversionError

_PICKLES = (".joblib", ".pkl", ".pickle")


def convert(source: Source) -> Export:
    """Export a fitted estimator by skl2onnx; its labels are left out, so that what trains is the probabilities.

    Raises ConversionError for a pickle without `trust`, an estimator that is not fitted, and one that skl2onnx cannot
    write.
    """
    import skl2onnx

    estimator = _load(source)
    inputs = source.inputs or _inputs_of(estimator)
    types = [(spec.name or "x", _type_of(spec)) for spec in inputs]
    classifies = hasattr(estimator, "predict_proba")
    options = {id(estimator): {"zipmap": False}} if classifies else None
    try:
        model = skl2onnx.convert_sklearn(estimator, initial_types=types, target_opset=OPSET, options=options)
    except Exception as problem:  # skl2onnx's own kinds, and those of the estimators
        raise exporter_failed("skl2onnx", problem, fix="It has no form for every estimator: see its list.") from problem
    if classifies:
        del model.graph.output[0]
    _write_out_scalers(model.graph)
    return Export(
        model=model,
        exporter=f"skl2onnx {skl2onnx.__version__}",
        samples=record(lambda arrays: [_predict(estimator, arrays)], inputs, [name for name, _ in types]),
        parameters=_parameters_of(estimator),
        normalisations=0,
        notes=("of the classifier's two outputs, the probabilities are kept",) if classifies else (),
    )


def _write_out_scalers(graph: onnx.GraphProto) -> None:
    """Write Scaler, an operator of ai.onnx.ml that few know, as Sub and Mul."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Scaler":
            nodes.append(node)
            continue
        values = {a.name: np.array(a.floats, np.float32) for a in node.attribute}
        source, result = node.input[0], node.output[0]
        names = {role: f"{result}.{role}" for role in ("offset", "scale")}
        graph.initializer.extend(onnx.numpy_helper.from_array(values[role], name) for role, name in names.items())
        nodes += [
            onnx.helper.make_node("Sub", [source, names["offset"]], [f"{result}.centred"], name=f"{result}.Sub"),
            onnx.helper.make_node("Mul", [f"{result}.centred", names["scale"]], [result], name=f"{result}.Mul"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _load(source: Source) -> Any:
    from sklearn.base import BaseEstimator

    path = Path(source.body)
    if path.suffix not in _PICKLES:
        return build(source.body, scheme="sklearn", kind=BaseEstimator, what="an estimator")
    if not path.is_file():
        raise ConversionError(f"{path} does not exist", fix="Check the path.", path=str(path))
    if not source.trust:
        raise refuse_pickle(str(path), "Or name a function that gives the estimator: sklearn:package.module:name.")
    import joblib

    try:
        found = joblib.load(path)
    except Exception as problem:  # whatever the pickle runs
        raise ConversionError(
            f"joblib cannot read {path}: {first_line(problem)}",
            fix="A pickle is for the version of scikit-learn that wrote it.",
        ) from problem
    if not isinstance(found, BaseEstimator):
        raise ConversionError(f"{path} holds an object of type {type(found).__name__}", fix="Save an estimator.")
    return found


def _inputs_of(estimator: Any) -> tuple[InputSpec, ...]:
    features = getattr(estimator, "n_features_in_", None)
    if features is None:
        raise ConversionError(
            f"the {type(estimator).__name__} is not fitted", fix="Call its fit, and save it again.", kind="estimator"
        )
    return (InputSpec(name="x", dtype="float32", shape=("N", int(features))),)


def _type_of(spec: InputSpec) -> Any:
    from skl2onnx.common import data_types

    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "int32": data_types.Int32TensorType,
        "bool": data_types.BooleanTensorType,
    }
    if spec.dtype not in kinds:
        raise ConversionError(f"skl2onnx has no inputs of type {spec.dtype}", fix=f"It has: {', '.join(kinds)}.")
    return kinds[spec.dtype]([None if isinstance(d, str) else d for d in spec.shape])


def _predict(estimator: Any, arrays: Sequence[Array]) -> Array:
    """What the ONNX model gives: probabilities of a classifier, a column of each value that is predicted."""
    (array,) = arrays
    try:
        if hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.predict_proba(array), np.float32)
        result = np.asarray(estimator.predict(array), np.float32)
    except ValueError as problem:
        raise ConversionError(
            f"the estimator cannot run on {list(array.shape)}: {first_line(problem)}",
            fix="Does --input say the features that it was fitted on?",
        ) from problem
    return result if result.ndim > 1 else result[:, None]


def _parameters_of(estimator: Any) -> dict[str, Array]:
    """Coefficients and intercepts by the names that scikit-learn has for them, with the step of a pipeline before."""
    steps = getattr(estimator, "steps", [("", estimator)])
    found: dict[str, Array] = {}
    for step, each in steps:
        prefix = f"{step}." if step else ""
        for name in ("coefs_", "intercepts_"):
            for at, value in enumerate(getattr(each, name, ())):
                found[f"{prefix}{at}.{name}"] = np.asarray(value, np.float32)
        for name in ("coef_", "intercept_"):
            if isinstance(getattr(each, name, None), np.ndarray):
                found[f"{prefix}{name}"] = np.asarray(getattr(each, name), np.float32)
    return found
