"""Every error that onnx-asgnas raises on purpose.

```
AsgnasError                what all share: a message, how to mend it, and fields
├── InputError             what the user gave cannot be used (exit code 2)
│   ├── ModelError         the ONNX file: unreadable, truncated, invalid, external data missing
│   ├── UnsupportedOperatorError   an operator that the asked-for step cannot handle
│   ├── ConversionError    a converter cannot make an ONNX model of the source
│   ├── DataError          the data set: missing, damaged, wrong shape, label out of range
│   ├── SpaceError         nothing to remove, or a space that belongs to another model
│   ├── TargetError        the target is ill-formed, or above the largest valid sparsity
│   ├── OutputError        a file cannot be written
│   ├── RunDirectoryError  the run directory cannot be written, is not empty, or is incomplete
│   └── PackageError       packages are missing or overwrite each other
├── TrainingError          training cannot go on
│   └── NonFiniteError     NaN or infinity in the data, the loss or a gradient
├── ConstructError         surgery would give a wrong model (always a defect of ours)
└── VerificationError      full and compact model differ (exit code 1)
```
"""

from __future__ import annotations


class AsgnasError(Exception):
    """What went wrong, how to mend it, and the facts as fields.

    `message` says what is wrong, `fix` what the user can do about it. Any other keyword (node, op_type, tensor,
    path, step, ...) is kept in `fields` and can be read as an attribute.
    """

    exit_code = 2

    def __init__(self, message: str, *, fix: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.fields = fields

    def __getattr__(self, name: str) -> object:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message


class InputError(AsgnasError):
    """What the user gave cannot be used."""


class ModelError(InputError):
    """The ONNX model cannot be read, is not valid, or is not one this step can work on."""


class UnsupportedOperatorError(InputError):
    """An operator that the asked-for step cannot handle."""


class ConversionError(InputError):
    """A converter cannot turn the source into an ONNX model."""


class DataError(InputError):
    """The data set is missing, damaged, or does not fit the model."""


class SpaceError(InputError):
    """The search space is empty, or belongs to another model."""


class TargetError(InputError):
    """The target is ill-formed, or more than can be removed."""


class OutputError(InputError):
    """A file cannot be written."""


class RunDirectoryError(InputError):
    """The run directory cannot be used."""


class PackageError(InputError):
    """Installed packages are missing, or overwrite each other."""


class TrainingError(AsgnasError):
    """Training cannot go on."""


class NonFiniteError(TrainingError):
    """NaN or infinity turned up in the data, the loss or a gradient."""


class ConstructError(AsgnasError):
    """Surgery would have given a wrong model; it is refused instead."""


class VerificationError(AsgnasError):
    """The compact model does not give what the full model gives."""

    exit_code = 1
