"""Fitted estimators for the tests of converters. As a script: write one as a pickle into a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler


def _data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)


def mlp() -> MLPClassifier:
    """Two hidden layers, three classes."""
    return MLPClassifier((32, 16), max_iter=5, random_state=0, tol=1e9).fit(*_data())


def scaled() -> Pipeline:
    """A scaler, then a perceptron."""
    x, y = _data()
    network = MLPRegressor(hidden_layer_sizes=(24,), max_iter=5, random_state=0, tol=1e9)
    return make_pipeline(StandardScaler(), network).fit(x, y)


def tanh() -> Pipeline:
    """Another scaler, another activation, two classes."""
    x, y = _data()
    network = MLPClassifier((16,), activation="tanh", max_iter=5, random_state=0, tol=1e9)
    return make_pipeline(MinMaxScaler(), network).fit(x, y > 0)


def linear() -> LogisticRegression:
    """A linear model, with nothing to prune."""
    return LogisticRegression().fit(*_data())


def ridge() -> Pipeline:
    """A linear model behind a scaler, with nothing to prune."""
    return make_pipeline(StandardScaler(), Ridge()).fit(*_data())


class Unknown(BaseEstimator):
    """An estimator of one's own."""

    n_features_in_ = 3

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]


def unknown() -> Unknown:
    """What no exporter knows."""
    return Unknown()


if __name__ == "__main__":
    joblib.dump(mlp(), Path(sys.argv[1]) / "mlp.joblib")
