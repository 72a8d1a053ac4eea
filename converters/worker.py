"""The process that `isolation.run` starts, as a script: does the job in a folder, leaves the export or an error there.

The interpreter may be one that this package is not installed for; then the package is taken from where this file lies.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import traceback
from pathlib import Path


def main(folder: Path) -> int:
    """Do the job; the exit code, 0 or 1."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    sys.path[:] = [*job["path"], *(path for path in sys.path[1:] if path not in job["path"])]
    _find_package()
    from onnx_asgnas.converters.export import source_from_json
    from onnx_asgnas.converters.failing import exporter_failed
    from onnx_asgnas.errors import AsgnasError

    module, _, function = job["target"].partition(":")
    try:
        export = getattr(importlib.import_module(module), function)(source_from_json(job["source"]))
        export.write(folder)
    except Exception as problem:
        traceback.print_exc()
        told = problem if isinstance(problem, AsgnasError) else exporter_failed(job["target"], problem)
        data = {
            "message": told.message,
            "fix": told.fix,
            "fields": {name: str(value) for name, value in told.fields.items()},
            "of_exporter": told is not problem or told.__cause__ is not None,
        }
        (folder / "error.json").write_text(json.dumps(data), encoding="utf-8")
        return 1
    return 0


def _find_package() -> None:
    """Let `import onnx_asgnas` find this installation, and none of the other packages that lie beside it.

    Whatever else is called so: in the folder of a checkout, the working directory holds a package without converters.
    """
    beside = Path(__file__).resolve().parents[1]
    package = beside if (beside / "errors.py").is_file() else beside / "onnx_asgnas"
    places = list(dict.fromkeys(map(str, (package, beside))))  # in a checkout converters/ lies beside the package
    spec = importlib.util.spec_from_file_location(
        "onnx_asgnas", package / "__init__.py", submodule_search_locations=places
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no package in {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_asgnas"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
