"""Keras on torch and scikit-learn beside this package, as continuous integration has them; the others: `measure.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnx_asgnas as nas
from onnx_asgnas.converters import Conversion, convert_with_report
from onnx_asgnas.errors import ConversionError, TargetError
from onnx_asgnas.pruning import cut

SOURCES = Path(__file__).parent / "sources"


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SOURCES)


def halved(found: Conversion) -> float:
    """The parameters that are kept when half of every layer leaves; the cut is exact, and changes something."""
    assert found.environment is None
    assert found.max_relative_difference is not None
    assert found.max_relative_difference <= 1e-5
    pruned = cut(found.model, nas.Target(uniform=0.5))
    verified = pruned.verify()
    verified.require()
    assert verified.moved > 1e-3
    return pruned.kept["params"]


class TestKeras:
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        pytest.importorskip("keras", reason="pip install 'onnx-asgnas[keras]'")

    def test_normalisations_and_names_are_kept(self) -> None:
        found = convert_with_report("keras:keras_nets:residual")
        assert found.operators["BatchNormalization"] == found.normalisations == 2
        assert not found.names.lost
        assert {"stem/kernel", "stem_bn/gamma", "stem_bn/moving_mean", "conv_bn/beta"} <= {
            tensor.name for tensor in found.model.graph.initializer
        }
        assert halved(found) < 0.4

    def test_a_dict_of_inputs(self) -> None:
        found = convert_with_report("keras:keras_nets:two_inputs")
        assert [value.name for value in found.model.graph.input] == ["features", "ids"]
        assert not found.names.lost
        assert halved(found) < 0.6

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras', when it saves
    def test_a_file(self, tmp_path: Path) -> None:
        import keras_nets

        keras_nets.residual().save(tmp_path / "net.keras")
        assert convert_with_report(f"keras:{tmp_path / 'net.keras'}").names.lost == ()

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_a_lambda_layer_needs_trust(self, tmp_path: Path) -> None:
        import keras

        x = keras.Input((3,))
        keras.Model(x, keras.layers.Lambda(lambda a: a * 2)(x)).save(tmp_path / "net.keras")
        with pytest.raises(ConversionError, match=r"loading it runs whatever code is in it\n.*--trust"):
            convert_with_report(f"keras:{tmp_path / 'net.keras'}")

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "net.keras").write_text("none")
        with pytest.raises(ConversionError, match="Keras cannot load"):
            convert_with_report(f"keras:{tmp_path / 'net.keras'}")


class TestScikitLearn:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("skl2onnx", reason="pip install 'onnx-asgnas[sklearn]'")

    @pytest.mark.parametrize(("name", "parameters"), [("mlp", 6), ("scaled", 4), ("tanh", 4)])
    def test_perceptrons(self, name: str, parameters: int) -> None:
        found = convert_with_report(f"sklearn:sklearn_nets:{name}")
        assert len(found.names.kept) + len(found.names.renamed) == parameters
        assert halved(found) < 0.6

    @pytest.mark.parametrize("name", ["linear", "ridge"])
    def test_a_linear_model_has_nothing_to_prune(self, name: str) -> None:
        found = convert_with_report(f"sklearn:sklearn_nets:{name}")
        with pytest.raises(TargetError, match="this model has nothing to remove"):
            cut(found.model, nas.Target(uniform=0.5))

    def test_a_pickle_needs_trust(self, tmp_path: Path) -> None:
        import joblib
        import sklearn_nets

        source = f"sklearn:{tmp_path / 'net.joblib'}"
        joblib.dump(sklearn_nets.linear(), tmp_path / "net.joblib")
        with pytest.raises(ConversionError, match=r"is a pickle.*\n.*--trust"):
            convert_with_report(source)
        assert convert_with_report(source, trust=True).batch_sizes == (2, 5)

    def test_an_estimator_that_is_not_fitted(self) -> None:
        with pytest.raises(ConversionError, match="the MLPClassifier is not fitted"):
            convert_with_report("sklearn:sklearn.neural_network:MLPClassifier")

    def test_one_that_skl2onnx_has_no_form_for(self) -> None:
        with pytest.raises(ConversionError, match="skl2onnx cannot export this network"):
            convert_with_report("sklearn:sklearn_nets:unknown")
