"""What an experiment is told: a network, data, a target, the methods and seeds to compare, and what is varied."""

from __future__ import annotations

import dataclasses
import importlib.resources
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_asgnas.config import SearchConfig, Target, TrainConfig
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


_TARGETS = frozenset(f.name for f in dataclasses.fields(Target))
_OPTIONS = {f.name for f in dataclasses.fields(SearchConfig)} - {"data", "target", "seed"}
_PLAIN_OPTIONS = {f.name for f in dataclasses.fields(TrainConfig)} & _OPTIONS

_ELSEWHERE = {"seed", "engine", "device", "threads", "checkpoint_every", "test_every"}
"""Options that a run's name tells, that differ from machine to machine, or that change nothing of what is trained."""

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """One thing that is varied, all else being as in H2SPG's own runs: a plot of its own.

    Each of the `points` says in which options, or in which target, it differs; the first of its options is the axis.
    """

    title: str
    points: tuple[Options, ...]

    def __post_init__(self) -> None:
        if not self.points or any(not point or next(iter(point)) != self.option for point in self.points):
            raise InputError(
                f"sweep {self.title!r}: its points do not begin with the same option", fix="Give the axis first."
            )

    @property
    def option(self) -> str:
        """The option that is the axis."""
        return next(iter(self.points[0]), "")

    @property
    def values(self) -> tuple[Any, ...]:
        """Where its points lie on the axis: numbers, or names."""
        return tuple(point[self.option] for point in self.points)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Runs of one network on one data set that differ in method and seed.

    `model` is a text for `models:`, to which each run adds its seed. `options` are fields of SearchConfig that all runs
    share, `variants` further methods by name, each with the fields, or the target, in which it differs, and `sweeps`
    the ones of which each point is a method. `more_seeds` says of methods that lie close how many seeds they have in
    all, numbers that follow the last of `seeds`. `seconds` is about what a run takes on one core. `has_folder` says
    that the data lie in a folder that the user names.
    """

    name: str
    title: str
    model: str
    data: str
    target: Target
    methods: tuple[str, ...] = (PLAIN, H2SPG, "random", SCRATCH)
    seeds: tuple[int, ...] = (0,)
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    variants: Mapping[str, Options] = field(default_factory=dict)
    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    seconds: float = 60.0
    has_folder: bool = False

    def __post_init__(self) -> None:
        lists: tuple[tuple[str, object, type, str], ...] = (
            ("methods", self.methods, str, '["plain", "h2spg"]'),
            ("seeds", self.seeds, int, "[0, 1, 2]"),
        )
        for name, value, kind, example in lists:
            if not (isinstance(value, tuple) and value and all(type(entry) is kind for entry in value)):
                raise self._wrong(f"{name} is {value!r}, and no list", f"Write it like {name} = {example}.")
        known = METHODS.keys() | self.variants.keys()
        for method in self.methods:
            if method not in known:
                raise self._no_method(method, known)
        points = [point for sweep in self.sweeps.values() for point in sweep.points]
        for options in (self.options, *self.variants.values(), *points):
            for name in options:
                if name not in _OPTIONS and (options is self.options or name not in _TARGETS):
                    raise self._wrong(f"there is no option {name!r}", f"Choose from: {', '.join(sorted(_OPTIONS))}.")
        for method, count in self.more_seeds.items():
            if method not in self.all_methods:
                raise self._no_method(method, self.all_methods)
            if type(count) is not int or count < len(self.seeds):
                raise self._wrong(
                    f"more_seeds of {method} are {count!r}", f"Write how many it has in all, {len(self.seeds)} or more."
                )

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and each point of a sweep that is none of them."""
        points = (self.method_at(sweep, point) for sweep in self.sweeps.values() for point in sweep.points)
        return tuple(dict.fromkeys((*self.methods, *points)))

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """The seeds that a method is run with."""
        further = self.more_seeds.get(method, 0) - len(self.seeds)
        return self.seeds + tuple(range(self.seeds[-1] + 1, self.seeds[-1] + 1 + further))

    def method_at(self, sweep: Sweep, point: Options) -> str:
        """The method that a point of a sweep is: one that does the same, or one of its own, as epsilon=0.5."""
        wanted = self._config(point)
        for method in (H2SPG, *METHODS, *self.variants):
            if method not in (PLAIN, SCRATCH) and self._config(self._differs(method)) == wanted:
                return method
        value = point[sweep.option]
        return f"{sweep.option}={value:g}" if isinstance(value, int | float) else f"{sweep.option}={value}"

    def options_of(self, method: str) -> dict[str, Any]:
        """The fields of its configuration for runs of one method; a score of structures holds for channels too.

        A plain training has the learning rate of H2SPG's runs at every step.
        """
        options = self._without_target({**self.options, **self._differs(method)})
        if method not in (PLAIN, SCRATCH):
            return options
        plain = {name: value for name, value in options.items() if name in _PLAIN_OPTIONS}
        return {**plain, "schedule": self._config({}).schedule}

    def config_of(self, method: str) -> TrainConfig:
        """The whole configuration of runs of one method, but for the seed and the user's folder."""
        if method in (PLAIN, SCRATCH):
            return TrainConfig.of(data=self.data, **self.options_of(method))
        return self._config(self._differs(method))

    def target_of(self, method: str) -> Target:
        """The target of runs of one method."""
        return self._target(self._differs(method))

    def changed_since(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """In what a run would be another one now: model, data, target and options, as they were when it was made.

        Of what the line does not tell nothing is said; the user's folder is no part of the data.
        """
        method = line.get("method")
        if method not in self.all_methods:
            return {}
        told = {"model": self.model, "target": str(self.target_of(method))}
        now = {**options_set(dataclasses.asdict(self.config_of(method))), **told}
        config = line.get("config", now)
        then = {**config, **{name: line.get(name, value) for name, value in told.items()}}
        then["data"] = self._without_folder(config.get("data", self.data))
        names = sorted((then.keys() | now.keys()) - _ELSEWHERE)
        return {name: then.get(name) for name in names if then.get(name) != now.get(name)}

    def _differs(self, method: str) -> Options:
        """In what a method differs from the experiment's own options and target."""
        if method in self.variants:
            return self.variants[method]
        for sweep in self.sweeps.values():
            for point in sweep.points:
                if method not in METHODS and self.method_at(sweep, point) == method:
                    return point
        own = dict(METHODS.get(method, {}))
        mode = self.options.get("mode", "erase")
        if "score" in own and mode != "erase":
            own["channel_score"] = own["score"]
            if mode == "prune":
                del own["score"]
        return own

    def _config(self, differs: Options) -> SearchConfig:
        options = self._without_target({**self.options, **differs})
        return SearchConfig.of(data=self.data, target=self._target(differs), **options)

    def _target(self, differs: Options) -> Target:
        own = {name: value for name, value in differs.items() if name in _TARGETS}
        return Target(**own) if own else self.target

    def _without_target(self, options: Options) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in _TARGETS}

    def data_in(self, folder: str | None) -> str:
        """The text of the data with the user's folder in it; raises InputError where one is needed."""
        if folder is None and self.has_folder:
            raise InputError(
                f"{self.name} needs its images from a folder of yours",
                fix="Give it as --data-dir DIR; docs/data.md says what it should hold.",
            )
        source, mark, arguments = self.data.partition("?")
        return self.data if folder is None else f"{source}:{folder}{mark}{arguments}"

    def _without_folder(self, data: str) -> str:
        """What `data_in` was given, as far as it was not the user's folder."""
        source, mark, arguments = data.partition("?")
        return data if ":" in self.data.partition("?")[0] else f"{source.partition(':')[0]}{mark}{arguments}"

    def _no_method(self, method: str, known: Iterable[str]) -> InputError:
        return self._wrong(f"there is no method {method!r}", f"Choose from: {', '.join(sorted(known))}.")

    def _wrong(self, what: str, fix: str) -> InputError:
        return InputError(f"experiment {self.name}: {what}", fix=fix, experiment=self.name)


def options_set(config: Options) -> dict[str, Any]:
    """What is worth keeping of a configuration: what is set."""
    return {name: value for name, value in config.items() if value not in (None, False, "", (), [])}


def names() -> tuple[str, ...]:
    """The experiments that come with the package; those of the paper's own settings begin with `paper/`."""
    root = importlib.resources.files(__package__)
    found = [entry.name for entry in root.iterdir()]
    found += [f"paper/{entry.name}" for entry in root.joinpath("paper").iterdir()]
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def queue() -> tuple[Experiment, ...]:
    """The experiments of the package that need no folder of the user's, the quick ones first."""
    found = [read(name) for name in names()]
    return tuple(sorted((e for e in found if not e.has_folder and "/" not in e.name), key=lambda e: e.seconds))


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
            f"there is no experiment {name!r}", fix=f"Choose one of: {', '.join(names())}; all; or give a .toml."
        )
    try:
        values: dict[str, Any] = tomllib.loads(text)
        values["target"] = Target(**values["target"])
        sweeps = {n: Sweep(**{**s, "points": tuple(s["points"])}) for n, s in values.pop("sweeps", {}).items()}
        return Experiment(name=name, sweeps=sweeps, **_with_tuples(values))
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, KeyError) as problem:
        raise InputError(
            f"experiment {name}: {problem}", fix="Compare it with onnx_asgnas/experiments/stackedunets-6k.toml."
        ) from None


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} cannot be read: {problem}", fix="Check the path.", path=str(path)) from None
