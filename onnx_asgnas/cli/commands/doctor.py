"""`doctor`: what is installed, what conflicts, and how to mend it."""

from __future__ import annotations

import platform
import sys
from typing import Any

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json
from onnx_asgnas.cli.screen import draw_table, print_json, say


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say which runtime and versions are here, what conflicts, and the command that mends it."""
    facts = _examine()
    if as_json:
        print_json(facts)
    else:
        rows = [[name, version or "missing"] for name, version in facts["packages"].items()]
        say(f"Python {facts['python']} on {facts['system']}, {facts['cores']} cores\n")
        draw_table("", ["package", "version"], rows, left=2)
        say(f"\ntraining engines: {', '.join(facts['engines']) or 'none'}")
        if facts["engines"]:
            say(f"auto is {facts['auto']['engine']}: {facts['auto']['reason']}")
        for problem in facts["problems"]:
            say(f"[bold red]problem:[/] {problem['what']}\n  mend it: {problem['fix']}")
        if not facts["problems"]:
            say("no problem found")
        ready = [name for name, state in facts["environments"].items() if state == "ready"]
        say(f"environments of converters: {', '.join(ready) or 'none'} (`onnx-asgnas env list`)")
    if facts["problems"]:
        raise typer.Exit(1)


def _examine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from onnx_asgnas.converters import environments
    from onnx_asgnas.graph.packages import RUNTIMES, can_train, runtime_problem

    packages: dict[str, str | None] = {}
    for name in ("onnx-asgnas", "onnx", "onnx-graphsurgeon", "numpy", "scipy", "protobuf", "torch", *RUNTIMES):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            if name not in RUNTIMES:
                packages[name] = None
    problems = []
    problem = runtime_problem()
    if problem is not None:
        problems.append({"what": problem.message, "fix": problem.fix})
    engines: list[str] = []
    if problem is None and packages["torch"]:
        engines = ["ort", "torch"] if can_train() else ["torch"]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": _cores(),
        "packages": packages,
        "engines": engines,
        "auto": {"engine": engines[0], "reason": _reason(engines[0])} if engines else None,
        "environments": {each.name: each.state for each in environments.status()},
        "problems": problems,
    }


def _reason(engine: str) -> str:
    from onnx_asgnas.training.engines import engine_reason

    return engine_reason(engine)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
