"""What an experiment is told: a network, data, a target, and the methods and seeds to compare."""

from __future__ import annotations

import dataclasses
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLAIN, SCRATCH = "plain", "scratch"
"""The full network, and the compact one that H2SPG found from new weights, each trained plainly."""
H2SPG = "h2spg"
METHODS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    H2SPG: {},
    SCRATCH: {},
    "random": {"score": "random"},
    "magnitude": {"score": "magnitude"},
    "paper": {"score": "paper"},
    "hesso": {"score": "hesso", "method": "hesso"},
    "dhspg": {"score": "paper", "method": "dhspg"},
}
"""The methods that every experiment knows, and the options by which they differ from the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Runs of one network on one data set that differ in method and seed.

    `model` is a text for `models:`, to which each run adds its seed. `options` are fields of SearchConfig that all runs
    share, `variants` further methods by name, each with the fields in which it differs. `seconds` is about what a run
    takes on two cores. `has_folder` says that the data lie in a folder that the user names.
    """

    name: str
    title: str
    model: str
    data: str
    target: Target
    methods: tuple[str, ...] = (PLAIN, H2SPG, "random", SCRATCH)
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 60.0
    has_folder: bool = False

    def __post_init__(self) -> None:
        known = METHODS.keys() | self.variants.keys()
        for method in self.methods:
            if method not in known:
                choices = ", ".join(sorted(known))
                raise self._wrong(f"there is no method {method!r}", f"Choose from: {choices}.")
        fields = {f.name for f in dataclasses.fields(SearchConfig)} - {"data", "target", "seed"}
        for options in (self.options, *self.variants.values()):
            for name in options:
                if name not in fields:
                    raise self._wrong(f"there is no option {name!r}", f"Choose from: {', '.join(sorted(fields))}.")

    def options_of(self, method: str) -> dict[str, Any]:
        """The fields of SearchConfig for runs of one method; a score of structures holds for channels too."""
        own = dict(self.variants.get(method, METHODS.get(method, {})))
        mode = {**self.options, **own}.get("mode", "erase")
        if method not in self.variants and "score" in own and mode != "erase":
            own["channel_score"] = own["score"]
            if mode == "prune":
                del own["score"]
        return {**self.options, **own}

    def data_in(self, folder: str | None) -> str:
        """The text of the data with the user's folder in it; raises InputError where one is needed."""
        if folder is None and self.has_folder:
            raise InputError(
                f"{self.name} needs its images from a folder of yours",
                fix="Give it as --data-dir DIR; docs/data.md says what it should hold.",
            )
        source, mark, arguments = self.data.partition("?")
        return self.data if folder is None else f"{source}:{folder}{mark}{arguments}"

    def _wrong(self, what: str, fix: str) -> InputError:
        return InputError(f"experiment {self.name}: {what}", fix=fix, experiment=self.name)


def names() -> tuple[str, ...]:
    """The experiments that come with the package; those of the paper's own settings begin with `paper/`."""
    root = importlib.resources.files(__package__)
    found = [entry.name for entry in root.iterdir()]
    found += [f"paper/{entry.name}" for entry in root.joinpath("paper").iterdir()]
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def read(name: str) -> Experiment:
    """An experiment of the package by its name, or of the user's own by the path of its TOML file.

    Raises InputError where there is none, and for what does not belong in it.
    """
    if name.endswith(".toml"):
        text, name = _text(Path(name)), Path(name).stem
    elif name in names():
        text = importlib.resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise InputError(
            f"there is no experiment {name!r}", fix=f"Choose one of: {', '.join(names())}; or give a .toml."
        )
    try:
        values: dict[str, Any] = tomllib.loads(text)
        values["target"] = Target(**values["target"])
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return Experiment(name=name, **(values | lists))
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as problem:
        raise InputError(
            f"experiment {name}: {problem}", fix="Compare it with onnx_asgnas/experiments/stackedunets-6k.toml."
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} cannot be read: {problem}", fix="Check the path.", path=str(path)) from None
