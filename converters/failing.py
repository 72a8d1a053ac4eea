"""How a converter fails: one line that says what and where, and a log that holds the rest."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from onnx_asgnas.errors import ConversionError

_ADVICE = "Try other inputs, or another version of the framework; write the operator in simpler ones."
_LONGEST = 300


@contextlib.contextmanager
def logged(log: Path | None) -> Iterator[None]:
    """Keep what exporters print, warn and log out of the terminal, in a file where one is given.

    A ConversionError that another exception has caused then names the file, in which the traceback stands too. Without
    a failure no file is written.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            with warnings.catch_warnings(), _printed_to(said):
                warnings.simplefilter("ignore")
                yield
        except ConversionError as problem:
            if log is not None and problem.__cause__ is not None:
                said.seek(0)
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(f"{said.read()}\n{traceback.format_exc()}", encoding="utf-8")
                problem.fields["log"] = str(log)
                problem.fix = f"{problem.fix} The full log: {log}".strip()
            raise
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _printed_to(file: TextIO) -> Iterator[None]:
    """Send standard output and error to a file, what libraries in C++ print too."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        for descriptor in before:
            os.dup2(file.fileno(), descriptor)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        file.flush()
        for descriptor, saved in before.items():
            os.dup2(saved, descriptor)
            os.close(saved)


def exporter_failed(exporter: str, problem: BaseException, *, fix: str = _ADVICE) -> ConversionError:
    """The one line for what an exporter raised: the innermost reason, the operator and the layer where it names them.

    To be raised `from problem`.
    """
    cause = innermost(problem)
    text = first_line(cause)
    told = " ".join(str(each) for each in (problem, cause))
    operator, layer = _operator(told), _layer(told)
    places = [f"operator {operator}" if operator else "", f"in {layer}" if layer else ""]
    where = ", ".join(p for p in places if p and p.rpartition(" ")[2] not in text)
    tail = f" ({where})" if where else ""
    fields = {name: value for name, value in (("op_type", operator), ("layer", layer)) if value}
    return ConversionError(
        f"{exporter} cannot export this network: {type(cause).__name__}: {text[:_LONGEST]}{tail}", fix=fix, **fields
    )


def innermost(problem: BaseException) -> BaseException:
    """The first reason of a chain: exporters wrap it in pages of advice."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return problem


def first_line(problem: BaseException) -> str:
    """The first line with text of what an exception says; Keras says the layer first, in a line of its own."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(problem))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or ["no message"]
    layer = re.match(r"Exception encountered when calling (\S+?)(?:\.call\(\))?\.?$", lines[0])
    return f"{lines[1]} (in {layer[1]})" if layer and len(lines) > 1 else lines[0]


def _operator(text: str) -> str | None:
    """The operator that an exporter's message names: `aten::foo`, `aten.foo.default`, a primitive, a TF operator."""
    forms = (
        r"\b(aten(?:::|\.)[\w.:]+)",
        r"\b((?:torchvision|quantized|prims|higher_order)(?:::|\.)[\w.:]+)",
        r"[Pp]rimitive[: ]+'?(\w+)'?",
        r"Tensorflow op \[[^:\]]*: (\w+)\]",
        r"\bop(?:erator)?(?: type)?[: ]+['\"\[](\w+)['\"\]]",
    )
    return next((match[1].rstrip(".:,") for form in forms if (match := re.search(form, text))), None)


def _layer(text: str) -> str | None:
    """The layer of the source: torch's nn_module_stack, or the name of a TensorFlow operator."""
    stack = re.findall(r"L\['self'\]((?:\._modules\['[^']+'\])+)", text)
    if stack:
        return ".".join(re.findall(r"\['([^']+)'\]", stack[-1]))
    torch_name = re.findall(r"(?:nn_module_stack|[Mm]odule)[^\n]*?'([\w.]+)', [<'\"]", text)
    if torch_name:
        return str(torch_name[-1])
    tensorflow = re.search(r"Tensorflow op \[([^:\]]*):", text)
    return tensorflow[1] if tensorflow else None
