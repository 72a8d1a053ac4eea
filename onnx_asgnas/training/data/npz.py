"""Arrays in an .npz file: one per model input, by its name, and the targets (`label`, if the loss names no other)."""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Array, Dataset
from onnx_asgnas.training.data.registry import DataRequest, register
from onnx_asgnas.training.data.selection import choose_parts

log = logging.getLogger(__name__)

TEST = "_test"
HELD_OUT = 0.1
"""Fraction held out for testing where the file has no test arrays and the user names no other."""


@register("npz")
def open_npz(
    location: str, request: DataRequest, *, train: int | None = None, validation: int | float | None = None
) -> Dataset:
    """The arrays of a file, taken as they are: nothing is scaled.

    Test data is in arrays with `_test` behind their names. Without them a tenth of the samples, balanced by label and
    always the same, is held out (the log says so). `train` and `validation` as for Fashion-MNIST. Raises DataError
    when the file is missing or damaged, or lacks an array; see `open_data` for what does not fit the model.
    """
    if not location:
        raise DataError("npz names no file", fix="Write npz:FILE.")
    targets = [name for name in request.targets if name not in {want.name for want in request.inputs}]
    names = [*(want.name for want in request.inputs), *targets]
    arrays, tests = _read(Path(location), names)
    if not tests and validation is None:
        validation = HELD_OUT
        log.info("%s has no test arrays: a tenth of its samples is held out", location)
    if tests and set(tests) != set(names):
        missing = sorted(set(names) - set(tests))
        raise DataError(
            f"{location} has test arrays, but not {missing[0] + TEST!r}", fix="Give all test arrays, or none."
        )
    training = request.split(arrays, arrays, where=location)
    target = arrays[request.targets[0]]
    kept, held = choose_parts(target, train=train, validation=validation)
    where = f"the test data of {location}"
    test = request.split(tests, tests, where=where, suffix=TEST) if held is None else training.take(held)
    labels = request.classes is not None and target.ndim == 1 and target.dtype.kind in "iu"
    classes = int(target.max()) + 1 if labels else None
    return Dataset(name=Path(location).name, train=training.take(kept), test=test, classes=classes)


def _read(path: Path, names: list[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The arrays of the file, and apart from them the test arrays, by the name that they test."""
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path} is a single array", fix="Save it by numpy.savez, with an array for each input."
                )
            arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", fix="Check the path.", path=str(path)) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as problem:
        text = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise DataError(
            f"{path} is not an .npz file of plain arrays: {text}", fix="Save it by numpy.savez.", path=str(path)
        ) from None
    tests = {name: arrays.pop(name + TEST) for name in names if name + TEST in arrays}
    unread = sorted(set(arrays) - set(names))
    if unread and all(name in arrays for name in names):
        log.info("%s: the model does not read %s", path, ", ".join(unread))
    return arrays, tests
