"""Plan a grid of runs, from a YAML file or the command line, in full before anything is trained."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Len

from longtail.compare.ablations import short_option
from longtail.config.auto import AUTO, Facts, after_overrides
from longtail.config.build import Document, build, parse_yaml, read_yaml, typed, with_options
from longtail.config.options import Count, Nested, OptionGroup, WholeNumber, flatten, merge, nested, types_of
from longtail.config.recipes import base_config, check_recipe
from longtail.config.resolve import choose_start, draft, follows_from_classifier, is_automatic, resolve
from longtail.config.schema import Choice, RunConfig, option_types
from longtail.config.stage import AUTO_LOSS
from longtail.data.sources.registry import absolute_source
from longtail.errors import LongtailError, UsageError, nearest
from longtail.run.layout import CHECKPOINT_FOLDER, CONFIG_FILE, GRID_FILE, METRICS_FILE, REPORT_FILE
from longtail.run.origin import first_difference

State = Literal["new", "started", "finished"]

_DATA_OPTIONS = "source image_column label_column split_column imbalance_ratio validation_fraction test_fraction folds"
DECISIVE = (*(f"data.{name}" for name in _DATA_OPTIONS.split()), "mode", "model.name")
"""Options that the automatic choices for a run depend on: its training images, the mode and the network."""
MAX_RUNS: Final = 10_000


@dataclass
class RunSpec(OptionGroup):
    """One configuration of a grid.

    Attributes:
        recipe: The recipe it starts from. ``auto`` chooses one by the images, as ``longtail train`` does without one;
            with it, and with those for any images, so are network, length and batch, unless ``vary`` changes one of
            :data:`DECISIVE`.
        source: Its own SOURCE, where that is not the grid's.
        epochs: As ``--epochs`` of ``longtail train``, where that is not the grid's.
        set: Options, by their dotted names or nested.
    """

    recipe: str = ""
    source: str = ""
    epochs: Count | None = None
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class GridSpec(OptionGroup):
    """The content of a grid file.

    Attributes:
        source: SOURCE of every run that names none.
        out: Folder of the grid.
        seeds: Number of seeds, from 0 up, or a list of them.
        epochs: As ``--epochs`` of ``longtail train``, for every run.
        batch_size: As ``--batch-size`` of ``longtail train``, for every run.
        baseline: The run that others are compared with; the first when not given.
        set: Options for every run, by their dotted names or nested; a run's own win.
        vary: Options by their dotted names, each with the values it takes: every run is made with every combination.
        runs: The configurations by name; see :class:`RunSpec`.
    """

    source: str = ""
    out: str = ""
    seeds: Count | Annotated[list[WholeNumber], Len(1)] = 1
    epochs: Count | None = None
    batch_size: Count | None = None
    baseline: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    vary: dict[str, list[Any]] = field(default_factory=dict)
    runs: dict[str, RunSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid.

    Attributes:
        name: Of the configuration, and of the folder its seeds are in.
        seed: Training seed.
        baseline: Name of the configuration it is compared with.
        folder: Its RUN folder.
        config: Its configuration.
    """

    name: str
    seed: int
    baseline: str
    folder: Path
    config: RunConfig

    @property
    def title(self) -> str:
        """Its name for the user."""
        return f"{self.name} seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """A planned grid.

    Attributes:
        out: Its folder.
        runs: All runs, the seeds of one configuration after each other.
        spec: The specification with the defaults filled in; as a file it plans the same grid again.
    """

    out: Path
    runs: tuple[PlannedRun, ...]
    spec: Nested


def read_grid(path: str | Path) -> Nested:
    """Read a grid file and check its names and value types; :func:`plan_grid` checks the rest.

    The ``grid.yaml`` next to the runs of a grid leads to the folder that it is in, as that may have been moved.

    Raises:
        LongtailError: The file is missing, is not a YAML mapping, has an unknown name or a value of the
            wrong type; the line and column are named.
    """
    document = read_yaml(path, "name a grid file")
    values: Any = document.values
    if not isinstance(values, dict):
        raise LongtailError(f"{path} is not a grid; it needs at least source, out and runs.")
    spec = _typed(values, document)
    options = [("set", spec.set), *((f"vary.{key}", {key: value}) for key in spec.vary for value in spec.vary[key])]
    options += [(f"runs.{name}.set", run.set) for name, run in spec.runs.items()]
    for section, given in options:
        for key, value in given.items():
            build(nested({key: value}), document.at(f"{section}.{key}"))
    folder = Path(path).absolute().parent
    is_stored = Path(path).name == GRID_FILE and Path(spec.out).is_absolute()
    if is_stored and any(folder.glob(f"*/seed-*/{CONFIG_FILE}")):  # where it may have been moved to
        return values | {"out": str(folder)}
    return dict(values)


def recipe_grid(
    source: str,
    recipes: Sequence[str],
    *,
    seeds: int = 1,
    epochs: int | None = None,
    batch_size: int | None = None,
    baseline: str = "",
    options: Sequence[str] = (),
) -> Nested:
    """Return the grid of ``longtail compare SOURCE --recipe NAME ...``, as in a grid file.

    Args:
        source: SOURCE.
        recipes: Names of recipes; a run is called by its last part where that is unique.
        seeds: Number of seeds, from 0 up.
        epochs: As ``--epochs`` of ``longtail train``.
        batch_size: As ``--batch-size`` of ``longtail train``.
        baseline: A recipe, or the name of a run.
        options: ``KEY=VALUE``, the value as in YAML.

    Raises:
        LongtailError: A recipe is named twice, or an option is not ``KEY=VALUE``.

    Example:
        >>> recipe_grid("digits", ["cifar-lt/ce"], options=["training.precision=bf16"])["set"]
        {'training.precision': 'bf16'}
    """
    if len(set(recipes)) < len(recipes):
        raise UsageError("a recipe is named twice: name each once, and use --seeds to repeat it.")
    names = {recipe: short_option(recipe, recipes, "/").replace("/", "-") for recipe in recipes}
    settings: dict[str, Any] = {}
    for word in options:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, such as --set training.precision=bf16, got {word!r}.")
        settings[key] = parse_yaml(value, f"--set {key}").values
    runs = {name: {"recipe": recipe} for recipe, name in names.items()}
    baseline = names.get(baseline, baseline)
    of_all: Nested = {"source": source, "seeds": seeds, "epochs": epochs, "batch_size": batch_size}
    return of_all | {"baseline": baseline, "set": settings, "runs": runs}


def plan_grid(values: Nested, where: str = "the grid") -> Grid:
    """Plan every run of a grid, and check all of them.

    Later ones win: the recipe scaled to ``epochs``, ``batch_size``, ``set`` of the grid, ``set`` of the run, ``vary``.

    Args:
        values: As in a grid file; see :class:`GridSpec`.
        where: The file they come from, for errors.

    Returns:
        The grid. Nothing is written.

    Raises:
        LongtailError: An unknown name, a value of the wrong type, or a configuration that no run can use.

    Example:
        >>> grid = plan_grid({"source": "digits", "out": "runs", "seeds": 2, "runs": {"ce": {"recipe": "cifar-lt/ce"}}})
        >>> [(run.title, run.folder.as_posix()) for run in grid.runs]
        [('ce seed 0', 'runs/ce/seed-0'), ('ce seed 1', 'runs/ce/seed-1')]
    """
    spec = _typed(values, where)
    _check(spec, where)
    seen: dict[str, Facts] = {}
    specs = {name: _with_choices(spec, run, f"{where}: run {name!r}", seen) for name, run in spec.runs.items()}
    # Without options that vary there is one combination, an empty one.
    combinations = [dict(zip(spec.vary, values, strict=True)) for values in itertools.product(*spec.vary.values())]
    variants: dict[str, tuple[str, Nested]] = {}
    for run, varied in itertools.product(specs, combinations):
        name = _folder_name(run, varied)
        if name in variants:
            raise LongtailError(f"{where} has two runs {name!r}: give its runs, and the values in vary, other names.")
        variants[name] = (run, varied)
    baselines = _baselines(variants, spec.baseline, where)
    seeds = list(range(spec.seeds)) if isinstance(spec.seeds, int) else spec.seeds
    runs: list[PlannedRun] = []
    for name, (run, varied) in variants.items():
        layers = [nested(options) for options in (spec.set, specs[run].set, varied)]
        with _named(f"{where}: run {name!r}"):
            if any("seed" in layer.get("training", {}) or "recipe" in layer for layer in layers):
                raise LongtailError("its seed or recipe is set as an option: use seeds, and recipe of the run.")
            start = {"recipe": specs[run].recipe, "data": {"source": specs[run].source or spec.source}}
            config = resolve(start, *layers, epochs=specs[run].epochs or spec.epochs, batch_size=spec.batch_size)
        if "training.precision" not in spec.set and not {"training.precision", "training.device"} & spec.vary.keys():
            # The choice made for this machine is stored in the grid, which may be continued on another one.
            specs[run].set.setdefault("training.precision", config.training.precision)
        for seed in seeds:
            folder = Path(spec.out) / name / f"seed-{seed}"
            seeded = with_options(config, {"training.seed": seed})
            runs.append(PlannedRun(name, seed, baselines[name], folder, seeded))
    resolved = _portable(spec) | {"seeds": seeds, "runs": {name: _portable(run) for name, run in specs.items()}}
    return Grid(Path(spec.out), tuple(runs), resolved)


def _folder_name(run: str, varied: Mapping[str, Any]) -> str:
    """Name a configuration of the grid by its run and the values of the varied options.

    Example:
        >>> _folder_name("gcl", {"data.imbalance_ratio": 50, "stage1.optimizer.lr": 0.1})
        'gcl-imbalance_ratio=50,lr=0.1'
    """
    words = ",".join(f"{short_option(key, varied)}={value}" for key, value in varied.items())
    return "-".join([run, *([re.sub(r"[^\w.+=,-]", "_", words)] if varied else [])])


def state_of(run: PlannedRun) -> State:
    """Tell whether a run is new, was started, or is finished.

    Raises:
        LongtailError: Its folder holds a run of another configuration, or something that is not a run.
    """
    if not (run.folder / CONFIG_FILE).is_file():
        remedy = "name another --out, or move it away."
        if run.folder.exists() and not run.folder.is_dir():
            raise LongtailError(f"{run.folder} is a file where a run should go: {remedy}")
        # A kill may have left the temporary file of a config.yaml behind.
        files = run.folder.iterdir() if run.folder.exists() else ()
        foreign = next((path.name for path in files if not path.name.endswith(".tmp")), None)
        if foreign is not None:
            raise LongtailError(f"{run.folder} holds {foreign!r} and is not a run: {remedy}")
        return "new"
    if not (run.folder / CHECKPOINT_FOLDER).exists() and not (run.folder / METRICS_FILE).exists():
        return "new"  # before its first checkpoint it may as well get another configuration
    difference = first_difference(run.folder, run.config)
    if difference is not None:
        key, before, now = difference
        file = run.folder.parent.parent / GRID_FILE
        is_in_grid = run.folder.parent.name == run.name and file.is_file()  # a fold lies in none
        # As it was planned, perhaps on another machine.
        again = shlex.quote(str(file.absolute()))
        hint = f"continue it with: longtail compare --grid {again}, " if is_in_grid else ""
        raise LongtailError(
            f"{run.folder} was made with --{key} {'left out' if before is None else before}, and the grid now says "
            f"{'to leave it out' if now is None else now}: {hint}"
            "name another --out, give the run another name, or delete that folder."
        )
    if not (run.folder / METRICS_FILE).is_file():
        return "started"
    # It may have been stopped between its figures and its report.
    is_unreported = (run.folder / CHECKPOINT_FOLDER).exists() and not (run.folder / REPORT_FILE).exists()
    return "started" if is_unreported else "finished"


def _typed(values: Nested, where: str | Document) -> GridSpec:
    """Build the specification of a grid, options by their dotted names; every name and every value is checked."""
    runs = values.get("runs")
    types, of_run = types_of(GridSpec), types_of(RunSpec)
    _refuse_misplaced(values, types, "", where)
    for name, run in runs.items() if isinstance(runs, dict) else ():
        types |= {f"runs.{name}.{option}": kind for option, kind in of_run.items()}
        if isinstance(run, dict):
            _refuse_misplaced(run, of_run, f"runs.{name}.", where)
    spec = typed(GridSpec, values, where, types=types)
    by_name = {name: replace(run, set=flatten(run.set)) for name, run in spec.runs.items()}
    return replace(spec, set=flatten(spec.set), runs=by_name)


def _refuse_misplaced(values: Nested, known: Mapping[str, Any], prefix: str, where: str | Document) -> None:
    """Refuse an option of training that stands next to ``set`` instead of below it."""
    for option in flatten(values):
        if option in option_types() and option not in known:
            place = where.at(f"{prefix}{option}") if isinstance(where, Document) else where
            raise LongtailError(f"{place}: {option} is an option of training: move it below {prefix}set.")


def _check(spec: GridSpec, where: str) -> None:
    if not spec.out:
        raise LongtailError(f"{where} names no folder for the runs: add out, or use --out DIR.")
    if not spec.runs:
        raise LongtailError(f"{where} has no runs: add runs, each a name with a recipe.")
    if isinstance(spec.seeds, list) and len(set(spec.seeds)) < len(spec.seeds):
        raise LongtailError(f"{where}: seeds takes different numbers, got {spec.seeds}.")
    sources = sorted({run.source or spec.source for run in spec.runs.values()})
    if len(sources) > 1:
        raise LongtailError(
            f"{where} has runs on {sources[0]!r} and on {sources[1]!r}, which no table can compare: make a grid of "
            "each, or name both under data.source in vary."
        )
    for key, values in spec.vary.items():
        if not values:
            raise LongtailError(f"{where}: vary gives {key} no values; list some or leave it out.")
    seeds = spec.seeds if isinstance(spec.seeds, int) else len(spec.seeds)
    planned = len(spec.runs) * seeds * math.prod(map(len, spec.vary.values()))
    if planned > MAX_RUNS:
        raise LongtailError(f"{where} has more than {MAX_RUNS:,} runs: use fewer seeds, or fewer values in vary.")
    for name, run in spec.runs.items():
        if not re.fullmatch(r"\w[\w.+=,-]*", name):
            raise LongtailError(f"{where}: {name!r} names a folder: use letters, digits and . + = , - _ only.")
        if not run.recipe:
            raise LongtailError(f"{where}: run {name!r} has no recipe; 'longtail recipes' lists them.")
        if run.recipe != AUTO:
            with _named(f"{where}: run {name!r}"):
                check_recipe(run.recipe, run.source or spec.source)
        if not (run.source or spec.source or "data.source" in spec.set | run.set | spec.vary):
            raise LongtailError(f"{where}: run {name!r} has no images: add a source to the grid or to the run.")


def _baselines(variants: Mapping[str, tuple[str, Nested]], baseline: str, where: str) -> dict[str, str]:
    """Return the baseline of each configuration, on the same images where options of the data vary."""
    images = {
        name: {key: value for key, value in varied.items() if key.startswith("data.")}
        for name, (_, varied) in variants.items()
    }
    runs = {name: run for name, (run, _) in variants.items()}
    first = next(iter(variants))
    baseline = baseline or (runs[first] if images[first] else first)
    if baseline in variants:
        return dict.fromkeys(variants, baseline)
    candidates = [name for name in variants if runs[name] == baseline]
    if not candidates:
        hint = nearest(baseline, {*runs.values(), *variants})
        raise LongtailError(f"{where} has no run {baseline!r} to be the baseline.{hint}")
    return {name: next(other for other in candidates if images[other] == images[name]) for name in variants}


def _with_choices(spec: GridSpec, run: RunSpec, where: str, seen: dict[str, Facts]) -> RunSpec:
    """Return a run with the automatic choices for it, as in ``longtail train``, so that ``grid.yaml`` holds them."""
    given = spec.set | run.set
    varied = next((key for key in DECISIVE if key in spec.vary), None)
    if not is_automatic(run.recipe) or "reasons" in given or (varied is not None and run.recipe != AUTO):
        return run
    if varied is not None:
        raise LongtailError(f"{where}: the recipe auto chooses once: leave {varied} out of vary, or name a recipe.")
    start = {"recipe": run.recipe, "data.source": run.source or spec.source}
    with _named(where):
        first = draft(start, given)
    key = repr((first.data, first.training, first.model.name))
    if key not in seen:
        from longtail.training.prepared_data import inspect_environment  # seconds of import: most grids do without

        seen[key], _ = inspect_environment(first)
    epochs, asked = run.epochs or spec.epochs, nested(given)
    config, _ = choose_start(merge(nested(start), asked), {}, epochs, seen[key])
    batches = {f"{stage}.batch_size": spec.batch_size for stage in ("stage1", "stage2") if spec.batch_size}
    whole = merge(merge(config, nested(batches)), asked)
    name = config["model"]["name"]
    base = flatten(base_config(config["recipe"], epochs=epochs, mode=config["mode"], model=name))
    chosen = {key: value for key, value in flatten(config).items() if base.get(key) != value}
    chosen = {"mode": config["mode"], "model.name": name} | chosen
    chosen["reasons"] = [asdict(after_overrides(Choice(**each), config, whole)) for each in config["reasons"]]
    chosen = {key: value for key, value in chosen.items() if key not in given | batches}
    if whole["stage1"]["loss"]["name"] == AUTO_LOSS:
        chosen = {key: value for key, value in chosen.items() if not follows_from_classifier(key)}
    return replace(run, recipe=config["recipe"], set=chosen | run.set)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the run that an error is about."""
    try:
        yield
    except LongtailError as error:
        raise LongtailError(f"{where}: {error}", options=error.options) from error


def _portable(spec: GridSpec | RunSpec) -> Nested:
    """Return a specification without empty entries, with absolute paths.

    A source in ``vary`` stays, as runs are named after it.
    """
    values = {key: value for key, value in asdict(spec).items() if value not in (None, "", {})}
    options = values.get("set", {})
    for table, key in ((values, "out"), (options, "model.weights")):
        if table.get(key):
            table[key] = str(Path(table[key]).absolute())
    for table, key in ((values, "source"), (options, "data.source")):
        if table.get(key):
            table[key] = absolute_source(str(table[key]))
    return values
