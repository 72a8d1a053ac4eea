"""The command line: its entry point, and the boundary where errors become one or two lines and an exit code."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from onnx_asgnas.cli.screen import complain
from onnx_asgnas.errors import AsgnasError

app = typer.Typer(
    name="onnx-asgnas",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Turn a network that is too big into a small ONNX model, in one training run.

A first run, on data that comes with the package:

    onnx-asgnas convert "models:stackedunets?width=8" -o unets.onnx

    onnx-asgnas analyze unets.onnx

    onnx-asgnas search unets.onnx --data fashion-mnist-mini --remove-groups 0.5 -o runs/first

Without training, by the weights alone, on any model:

    onnx-asgnas prune model.onnx --keep-macs 0.5 -o compact.onnx
""",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0 done, 1 a check failed, 2 bad use or input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments, prog_name="onnx-asgnas")
    except AsgnasError as error:
        if "--debug" in arguments:
            raise
        complain(f"[bold red]error:[/] {escape(error.message)}")
        if error.fix:
            complain(escape(error.fix))
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
