"""The command line, with Typer and Rich: `onnx-asgnas COMMAND`."""

import onnx_asgnas.cli.commands  # noqa: F401  (importing it registers the commands)
from onnx_asgnas.cli.app import app, main

__all__ = ["app", "main"]
