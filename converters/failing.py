"""How a converter fails: one line that says what and where, and a log that holds the rest."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from onnx_asgnas.errors import ConversionError

_ADVICE = "Try other inputs, or another version of the framework; write the operator in simpler ones."
_LONGEST = 300


@contextlib.contextmanager
def logged(log: Path | None) -> Iterator[None]:
    """Keep what exporters print, warn and log out of the terminal, in a file where one is given.

    A ConversionError that another exception has caused then names the file, in which the traceback stands too. Without
    a failure no file is written.
    """
    said = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    except ConversionError as problem:
        if log is not None and problem.__cause__ is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{said.getvalue()}\n{traceback.format_exc()}", encoding="utf-8")
            problem.fields["log"] = str(log)
            problem.fix = f"{problem.fix} The full log: {log}".strip()
        raise
    finally:
        logging.disable(disabled)


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
    """The first line with text of what an exception says."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), "no message")


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
