"""The commands, in the order in which a user meets them; importing a module registers its commands."""

from onnx_asgnas.cli.commands import convert, analyze, prune, search, finetune, compact  # noqa: F401, I001
from onnx_asgnas.cli.commands import export, experiment, doctor, env  # noqa: F401
