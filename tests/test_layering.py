"""The layout of docs and design, held by the imports: a module imports only from below, never sideways.

Also: which modules may need torch at all, and what `import onnx_asgnas` loads.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "onnx_asgnas"
ROOT = Path(__file__).parents[1]

LAYERS = {
    "errors": 0,
    "config": 1,
    "specs": 1,
    "graph": 2,
    "operators": 3,
    "space": 4,
    "training": 5,
    "surgery": 5,
    "evaluation": 6,
    "export": 7,
    "report": 7,
    "pruning": 7,
    "runs": 8,
    "pipeline": 9,
    "finetuning": 9,
    "experiments": 10,
    "cli": 11,
    "__main__": 12,
    "__init__": 12,
}
"""Level of each module of the package; one level is sideways, and may not be imported either."""

BESIDE = {
    "models": {"errors", "config", "specs", "graph"},
    "converters": {"errors", "config", "specs", "graph", "models"},
}
"""What the two folders at the top of the checkout may import; only the pipeline and what is above may import them."""

WITHOUT_TORCH = {
    "errors",
    "config",
    "specs",
    "graph",
    "operators",
    "space",
    "surgery",
    "report",
    "models",
    "converters",
}
"""Modules that must load without torch (a converter imports its framework when it is asked for)."""


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package with the layer that it belongs to."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        yield path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py"), path
    for folder in BESIDE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def imports(path: Path, package: str) -> Iterator[tuple[str, bool]]:
    """The modules that a file imports, by absolute name, and whether it does so as soon as it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node, at_load in _with_context(tree, True):
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, at_load
            if module == PACKAGE:
                yield from ((f"{module}.{alias.name}", at_load) for alias in node.names)


def _with_context(node: ast.AST, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield child, at_load
        yield from _with_context(child, at_load and not inside)


def may_import(importer: str, imported: str) -> bool:
    """Does the layout allow a module of the layer `importer` to import one of the layer `imported`?"""
    if importer == imported:
        return True
    if importer in BESIDE:
        return imported in BESIDE[importer]
    if imported in BESIDE:
        return LAYERS[importer] >= LAYERS["runs"]
    return LAYERS[imported] < LAYERS[importer]


def package_of(layer: str, path: Path) -> str:
    """The package that a file's relative imports start from."""
    top = ROOT if layer in BESIDE or PACKAGE in path.parts else path.parent
    parts = [*path.relative_to(top).parent.parts]
    return ".".join(parts if parts[:1] == [PACKAGE] else [PACKAGE, *parts])


def test_every_module_has_a_layer() -> None:
    unknown = {layer for layer, _ in sources()} - LAYERS.keys() - BESIDE.keys()
    assert not unknown, f"give these a place in LAYERS: {unknown}"


def test_modules_import_only_from_below() -> None:
    wrong = []
    for layer, path in sources():
        for name, _ in imports(path, package_of(layer, path)):
            top, _, rest = name.partition(".")
            imported = rest.partition(".")[0]
            known = imported in LAYERS or imported in BESIDE
            if top == PACKAGE and known and not may_import(layer, imported):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_training_and_what_stands_on_it_loads_torch() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for layer, path in sources()
        if layer in WITHOUT_TORCH
        for name, at_load in imports(path, package_of(layer, path))
        if at_load and name.partition(".")[0] in ("torch", "onnxruntime")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_framework_is_loaded_with_the_package() -> None:
    frameworks = {"tensorflow", "keras", "jax", "flax", "sklearn", "paddle", "torchvision", "timm", "transformers"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for layer, path in sources()
        for name, at_load in imports(path, package_of(layer, path))
        if at_load and name.partition(".")[0] in frameworks
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("space", "operators", True),
        ("space", "training", False),
        ("training", "surgery", False),
        ("graph", "graph", True),
        ("graph", "models", False),
        ("cli", "converters", True),
        ("converters", "models", True),
        ("models", "converters", False),
        ("converters", "space", False),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_the_reader_of_imports(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "from onnx_asgnas import errors\n"
        "from ..graph import trace\n"
        "from . import sibling\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def late():\n    import jax.numpy\n"
        "class Body:\n    import onnx\n"
    )
    assert dict(imports(file, "onnx_asgnas.space")) == {
        "onnx_asgnas": True,
        "onnx_asgnas.errors": True,
        "onnx_asgnas.graph": True,
        "onnx_asgnas.space": True,
        "torch": False,
        "jax.numpy": False,
        "onnx": True,
    }


@pytest.mark.parametrize("module", ["onnx_asgnas", "onnx_asgnas.models", "onnx_asgnas.converters"])
def test_loading_needs_neither_torch_nor_onnxruntime(module: str, tmp_path: Path) -> None:
    script = f"import sys, {module}; print(*sorted({{'torch', 'onnxruntime', 'scipy'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
