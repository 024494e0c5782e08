"""Damage the files of a RUN at random and use it: every command has to end in time, in a result or in one sentence.

    python benchmarks/fuzz.py --seconds 600             # as many damaged runs as fit
    python benchmarks/fuzz.py --seed 3 --only model.json

One small run with two stages, recorded gradients, an analysis, an adjustment and its checkpoints is trained on the
digits, and one with two folds; beneath it lie the file of a grid, of which nothing is trained, and two of a class
prior. Each case changes one file of a copy and calls a command that reads it. The changes: a value of JSON, YAML or the
metadata of a checkpoint becomes another type, a number out of range or of 400 digits, NaN, infinity, a lone surrogate,
or 1,000 nested lists; it is removed; tags and aliases of YAML; a column of a table gets another type, a null or a
number out of range, or goes; a tensor gets another shape or type; a file is cut short, or has wrong bytes. What counts
is a traceback or a case that takes longer than --limit seconds.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from longtail.cli import main as longtail
from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.experiments import folds, grid_runner
from longtail.experiments.grid_plan import Grid, plan_grid, state_of
from longtail.files import write_yaml
from longtail.predict.hub import model_card
from longtail.run.layout import GRID_FILE
from longtail.training.launch import start_run

OPTIONS = (
    "--recipe",
    "cifar-lt/gcl",
    "--imbalance-ratio",
    "20",
    "--model.name",
    "plain-cnn",
    "--data.image_size",
    "8",
    "--data.validation_fraction",
    "0.2",
    "--stage1.epochs",
    "1",
    "--stage2.epochs",
    "1",
    "--stage1.batch_size",
    "256",
    "--training.record_dynamics",
    "true",
    "--training.precision",
    "fp32",
    "--training.device",
    "cpu",
    "--stage1.optimizer.lr",
    "0.02",
    "--training.ema_decay",
    "0.9",
    "--keep-checkpoints",
    "--quiet",
)
READERS = {
    "config.yaml": ("evaluate", "report", "adjust", "resume", "push"),
    "metrics.json": ("evaluate", "report", "compare", "resume", "push"),
    "model.json": ("evaluate", "predict", "report", "adjust", "push", "export"),
    "model.safetensors": ("predict", "evaluate"),
    "adjusted.json": ("push", "adjust"),
    "history.csv": ("report",),
    "splits.csv": ("evaluate",),
    "predictions.parquet": ("compare", "report"),
    "examples.parquet": ("report", "export"),
    "dynamics": ("report",),
    "analysis": ("report",),
    "checkpoint": ("resume",),
    "grid.yaml": ("plan",),
    "tracker.json": ("resume",),
    "cv/fold-0/metrics.json": ("pool",),
    "cv/fold-0/predictions.parquet": ("pool",),
    "cv/fold-0/examples.parquet": ("pool",),
    "prior.json": ("prior.json",),
    "prior.csv": ("prior.csv",),
}
"""The commands that read a file, or the files of a folder, of a RUN."""


@dataclass(frozen=True)
class Case:
    """A damaged file and the command that reads it.

    Attributes:
        seed: Seed of the case.
        file: The path in the RUN.
        change: The damage.
        command: The command.
        result: ``result``, ``sentence``, ``traceback`` or ``hang``.
        message: The last lines that it printed, or the traceback.
        seconds: Duration.
    """

    seed: int
    file: str
    change: str
    command: str
    result: str
    message: str
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether it ended in time, in a result or in one sentence."""
        return self.result in {"result", "sentence"}


def make_run(folder: Path, *, is_whole: bool = True) -> Path:
    """Train the run that is damaged, in a folder with an image to predict; folds and a tracker take longer."""
    run, image = folder / "run", folder / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(image)
    words = [
        ["train", "digits", "--out", str(run), *OPTIONS, "--tracker", "tensorboard" if is_whole else "none"],
        ["analyse", str(run)],
        ["adjust", str(run)],
        *([["train", "digits", "--out", str(run / "cv"), "--folds", "2", *OPTIONS]] if is_whole else []),
    ]
    with mock.patch.object(folds, "run_grid", _trained):
        for command in words:
            status, text = _called(command)
            if status != 0:
                raise RuntimeError(f"the run cannot be made: {text}")
    grid = {
        "source": "digits",
        "out": str(folder / "grid"),
        "seeds": 2,
        "epochs": 2,
        "baseline": "gcl",
        "set": {"data.workers": 0},
        "vary": {"stage1.optimizer.lr": [0.1, 0.2], "data.imbalance_ratio": [10, 20]},
        "runs": {name: {"recipe": f"cifar-lt/{name}", "set": {"model.name": "plain-cnn"}} for name in ("gcl", "ce")},
    }
    write_yaml(run / GRID_FILE, plan_grid(grid).spec)
    shares = {str(digit): digit / 100 for digit in range(10)}
    (run / "prior.json").write_text(json.dumps(shares))
    (run / "prior.csv").write_text("".join(f"{name},{share}\n" for name, share in shares.items()))
    shutil.copytree(run, folder / "other")
    return run


def run_case(base: Path, seed: int, only: str = "", commands: tuple[str, ...] = (), limit: float = 20.0) -> Case:
    """Damage a copy of the run and use it.

    Args:
        base: From :func:`make_run`.
        seed: Seed of the case.
        only: The file or folder to damage; empty for any.
        commands: The commands to choose from; empty for all that read the file.
        limit: Seconds after which a command counts as one that hangs.
    """
    rng = random.Random(seed)
    name = only or rng.choice([name for name in READERS if (base / name).exists()])
    with tempfile.TemporaryDirectory(prefix="longtail-fuzz-") as folder:
        run = Path(folder) / "run"
        shutil.copytree(base, run)
        path = run / name
        if path.is_dir():
            path = rng.choice(sorted(path.iterdir()))
        change = damage(path, rng)
        command = rng.choice([word for word in READERS[name] if not commands or word in commands] or READERS[name])
        if name == "checkpoint":  # the other one would be taken instead
            for other in path.parent.iterdir():
                if other != path:
                    other.unlink()
        begun = time.perf_counter()
        result, message = _used(run, command, base.parent, limit)
        file = path.relative_to(run).as_posix()
    return Case(seed, file, change, command, result, message, round(time.perf_counter() - begun, 2))


def _used(run: Path, command: str, folder: Path, limit: float) -> tuple[str, str]:
    words = {
        "evaluate": ["evaluate", str(run)],
        "report": ["report", str(run), "--out", str(run.parent / "page.html")],
        "compare": ["compare", str(run), str(folder / "other")],
        "predict": ["predict", str(run), str(folder / "image.png")],
        "adjust": ["adjust", str(run)],
        "export": ["export", str(run), "--out", str(run.parent / "model.pt2")],
        "resume": ["train", "--resume", str(run), "--quiet"],
        "plan": ["compare", "--grid", str(run / GRID_FILE)],
        "pool": ["train", "--resume", str(run / "cv"), "--quiet"],
    }
    words |= {
        name: ["predict", str(run), str(folder / "image.png"), "--prior", str(run / name), "--out", str(run / "o.csv")]
        for name in ("prior.json", "prior.csv")
    }
    if command in {"resume", "pool"}:
        for name in ("report.html", "model.json", "cv/metrics.json"):
            (run / name).unlink(missing_ok=True)

    def stop(*_: object) -> None:
        raise TimeoutError("too slow")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        if command == "push":  # what it writes, without a hub
            try:
                model_card(run)
                return "result", ""
            except LongtailError as error:
                return "sentence", str(error)
        with (
            mock.patch.object(grid_runner, "run_grid", _untrained),
            mock.patch.object(folds, "run_grid", return_value={}),
        ):
            status, text = _called(words[command])
        if "too slow" in text:
            return "hang", ""
        return "result" if status == 0 else "sentence", text[-500:]
    except TimeoutError:
        return "hang", traceback.format_exc()[-1500:]
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _untrained(grid: Grid, *_: object, **__: object) -> dict[Path, str]:
    """Look at the folder of each run of a grid, as before its training, and train none."""
    return {run.folder: f"{state_of(run)}." for run in grid.runs}


def _trained(grid: Grid, reporter: Reporter) -> dict[Path, str]:
    """Train the runs of a grid in this process, without those that it would start."""
    for run in grid.runs:
        start_run(run.config, run.folder, reporter)
    return {}


def _called(words: list[str]) -> tuple[int, str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        status = longtail(words)
    return status, text.getvalue()


def damage(path: Path, rng: random.Random) -> str:
    """Change a file by its kind, or as bytes; return what was done."""
    kinds: dict[str, Callable[[Path, random.Random], str]] = {
        ".json": _damage_json,
        ".yaml": _damage_yaml,
        ".csv": _damage_csv,
        ".parquet": _damage_parquet,
        ".safetensors": _damage_tensors,
    }
    return _damage_bytes(path, rng) if rng.random() < 0.15 else kinds[path.suffix](path, rng)


def _damage_bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    match rng.choice(["cut", "flip", "empty", "text", "repeat"]):
        case "cut":
            length = rng.randrange(len(data))
            path.write_bytes(data[:length])
            return f"cut to {length} bytes"
        case "flip":
            places = [rng.randrange(len(data)) for _ in range(rng.choice([1, 4, 30]))]
            for place in places:
                data[place] = rng.randrange(256)
            path.write_bytes(data)
            return f"other bytes at {places[:4]}"
        case "empty":
            path.write_bytes(b"")
            return "empty"
        case "text":
            path.write_bytes(b"\xff\xfe text \x00")
            return "text that is not UTF-8"
        case _:
            path.write_bytes(data + data)
            return "twice in one file"


class Raw(str):
    """Text that stands in JSON as it is."""


NESTED = Raw("[" * 1000 + "]" * 1000)
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    "text",
    "",
    -1,
    1.5,
    0,
    10**9,
    999,
    [],
    {},
    [[]],
    {"a": {"b": None}},
    [None],
    [1, "a", None],
    "a" * 200_000,
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw("9" * 400),
    Raw("9" * 5000),
    Raw("1e999"),
    Raw('"\\ud800"'),
    NESTED,
    Raw('{"a":' * 1000 + "1" + "}" * 1000),
    2**63,
    -(2**63),
    1e300,
    1e-320,
    "\x00",
    "../../x",
    "1",
    "nan",
)


def _places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within nested values, of long lists only the first ones."""
    yield path
    items = values.items() if isinstance(values, dict) else enumerate(values[:3]) if isinstance(values, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


def _change_value(values: Any, rng: random.Random) -> tuple[Any, str]:
    """Replace or remove a random value of nested ones."""
    root = {"": values}
    path = ("", *rng.choice(list(_places(values))))
    parent: Any = root
    for key in path[:-1]:
        parent = parent[key]
    name = ".".join(map(str, path[1:])) or "everything"
    action = rng.random()
    if action < 0.15 and len(path) > 1:
        del parent[path[-1]]
        return root[""], f"without {name}"
    if action < 0.2 and isinstance(parent[path[-1]], dict):
        parent[path[-1]] |= {"an unknown name": rng.choice(HOSTILE)}
        return root[""], f"more in {name}"
    if action < 0.25 and isinstance(parent[path[-1]], list):
        parent[path[-1]] = parent[path[-1]] * 2
        return root[""], f"twice as long {name}"
    value = rng.choice(HOSTILE)
    parent[path[-1]] = value
    return root[""], f"{name} = {str(value)[:40]}"


def _json(values: Any) -> str:
    """JSON with raw text where there is some."""
    raw: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raw.append(value)
            return f"@raw{len(raw) - 1}@"
        if isinstance(value, dict):
            return {key: marked(item) for key, item in value.items()}
        return [marked(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(marked(values))
    for number, part in enumerate(raw):
        text = text.replace(f'"@raw{number}@"', part)
    return text


def _damage_json(path: Path, rng: random.Random) -> str:
    values, change = _change_value(json.loads(path.read_text()), rng)
    path.write_text(_json(values))
    return change


YAML_LINES = (
    "!!timestamp foo",
    "!!int foo",
    "!!bool foo",
    "!!float foo",
    "!!python/object/apply:os.system [ls]",
    "!!binary a",
    "[" * 1000,
    "{a: " * 1000,
    "9" * 5000,
    ".nan",
    ".inf",
    "null",
    "1e999",
    "2024-01-01",
    "0x10",
    "1:30:00",
    "*nothing",
    "&a [*a]",
    "!!set {a, b}",
    "<<: 3",
    "? [a]\n  : b",
    '"\\ud800"',
    "10000000000",
)
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
)


def _damage_yaml(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    if rng.random() < 0.1:
        path.write_text("\n".join([*lines, BOMB]))
        return "aliases of aliases"
    if rng.random() < 0.5:
        place = rng.randrange(len(lines))
        name, _, _ = lines[place].partition(":")
        value = rng.choice(YAML_LINES)
        lines[place] = f"{name}: {value}"
        path.write_text("\n".join(lines))
        return f"{name.strip()}: {value[:40]}"
    values, change = _change_value(yaml.safe_load(path.read_text()), rng)
    path.write_text(_json(values))  # JSON is YAML
    return change


CELLS = (
    "",
    "text",
    "-1",
    "1.5",
    "999",
    "nan",
    "inf",
    "9" * 400,
    "\x00",
    '"',
    "a,b",
    "1e999",
    "x" * 200_000,
    "\u2028",
    "\u0663",
)


def _damage_csv(path: Path, rng: random.Random) -> str:
    rows = list(csv.reader(io.StringIO(path.read_text())))
    row = rng.choice([0, rng.randrange(len(rows))])
    column = rng.randrange(len(rows[row]))
    match rng.choice(["cell", "cell", "cell", "column", "row", "short", "all"]):
        case "cell":
            cell = rows[row][column] = rng.choice(CELLS)
            change = f"cell {row}, {column} = {cell[:20]!r}"
        case "column":
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
            change = f"without column {column}"
        case "row":
            del rows[row]
            change = f"without row {row}"
        case "short":
            rows[row] = rows[row][:column]
            change = f"row {row} ends after {column} cells"
        case _:
            cell = rng.choice(CELLS)
            rows = [rows[0], *([*cells[:column], cell, *cells[column + 1 :]] for cells in rows[1:])]
            change = f"column {column} = {cell[:20]!r}"
    quoted = rng.random() < 0.7
    text = io.StringIO()
    if quoted:
        csv.writer(text).writerows(rows)
    else:
        text.write("\n".join(",".join(cells) for cells in rows))
    path.write_text(text.getvalue())
    return change


def _damage_parquet(path: Path, rng: random.Random) -> str:
    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    where, column, size = table.column_names.index(name), table[name], len(table)
    kinds = {
        "text": lambda: pa.array(["text"] * size),
        "digits": lambda: pa.array([str(n % 10) for n in range(size)]),
        "null": lambda: pa.array([None, *column.to_pylist()[1:]], column.type),
        "all null": lambda: pa.nulls(size, column.type),
        "no type": lambda: pa.nulls(size),
        "999": lambda: pa.array([999, *[0] * (size - 1)]),
        "-1": lambda: pa.array([-1, *[0] * (size - 1)]),
        "nan": lambda: pa.array([float("nan")] * size),
        "infinite": lambda: pa.array([float("inf")] * size),
        "huge": lambda: pa.array([2**64 - 1] * size, pa.uint64()),
        "half": lambda: pa.array([0.5] * size),
        "bytes": lambda: pa.array([b"\xff\x00"] * size),
        "lists": lambda: pa.array([[1] * (n % 3) for n in range(size)], pa.list_(pa.int64())),
        "structs": lambda: pa.array([{"a": 1}] * size),
        "times": lambda: pa.array([0] * size, pa.timestamp("s")),
        "categories": lambda: pa.array(["a"] * size).dictionary_encode(),
    }
    kind = rng.choice([*kinds, "gone", "rows", "none", "shuffled", "twice"])
    if kind == "gone":
        table = table.drop_columns([name])
    elif kind == "rows":
        table = table.slice(0, rng.randrange(size))
    elif kind == "none":
        table = table.slice(0, 0)
    elif kind == "shuffled":
        table = table.take(pa.array(rng.sample(range(size), size)))
    elif kind == "twice":
        table = table.append_column(name, column)
    else:
        table = table.set_column(where, name, kinds[kind]())
    pq.write_table(table, path)
    return f"{name}: {kind}"


def _damage_tensors(path: Path, rng: random.Random) -> str:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    if "state" in metadata and rng.random() < 0.6:
        if rng.random() < 0.1:
            change = rng.choice(["no metadata", "no state", "state is a word"])
            metadata = {"no metadata": {}, "no state": {"x": "1"}, "state is a word": {"state": "word"}}[change]
        else:
            values, change = _change_value(json.loads(metadata["state"]), rng)
            metadata = {"state": _json(values)}
    else:
        kinds = {
            "another shape": lambda: torch.zeros((*tensor.shape, 2)),
            "flat": lambda: tensor.flatten()[: max(1, tensor.numel() // 2)].clone(),
            "no dimension": lambda: torch.tensor(1.0),
            "integers": lambda: tensor.to(torch.int64),
            "half precision": lambda: tensor.to(torch.float16),
            "booleans": lambda: tensor.bool(),
            "no values": lambda: torch.zeros(0),
            "not finite": lambda: torch.full_like(tensor.float(), float("nan")),
        }
        change = rng.choice([*kinds, "gone", "renamed", "one more"])
        if change in {"gone", "renamed"}:
            del tensors[name]
        else:
            tensors["one.more" if change == "one more" else name] = kinds.get(change, kinds["no values"])()
        if change == "renamed":
            tensors[rng.choice(["x", f"{name}.x", "optimizer.99.exp_avg", "optimizer.x"])] = tensor
        change = f"{name}: {change}"
    save_file(tensors, path, metadata=metadata)
    return change


def main() -> int:
    """Damage runs until the time is over; return 1 where a command ended in a traceback or did not end."""
    from common import parser

    options = parser(__doc__ or "")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="the first case")
    options.add_argument("--seconds", type=float, default=600, metavar="N", help="how long to go on")
    options.add_argument("--limit", type=float, default=20, metavar="N", help="seconds that a command may take")
    options.add_argument("--only", choices=READERS, default="", help="the file or folder to damage")
    flags = options.parse_args()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="longtail-fuzz-") as folder:
        base, end = make_run(Path(folder)), time.monotonic() + flags.seconds
        while time.monotonic() < end:
            cases.append(run_case(base, flags.seed + len(cases), flags.only, limit=flags.limit))
            if not cases[-1].is_right:
                sys.stdout.write(f"{cases[-1]}\n{cases[-1].message}\n\n")
    counts = Counter(case.result for case in cases)
    rows = [{"name": f"damaged files: {name}", "ours": counts[name], "unit": "cases"} for name in counts]
    sys.stdout.write(f"{len(cases)} cases: {dict(counts)}; the slowest took {max(case.seconds for case in cases)} s\n")
    if flags.json is not None:
        flags.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(any(not case.is_right for case in cases))


if __name__ == "__main__":
    sys.exit(main())
