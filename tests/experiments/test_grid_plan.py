"""The plan of a grid: what a file and the command line plan, and which of its runs are there already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_grid import RUNS, SMALL, fake_run, spec

from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import GridSpec, plan_grid, read_grid, recipe_grid, state_of
from longtail.experiments.grid_runner import run_grid


def test_auto_is_chosen_once_and_written_out() -> None:
    auto = {"auto": {"recipe": "auto", "set": {"mode": "scratch"}}}
    planned = plan_grid(spec(runs=auto, epochs=None, set={"data.imbalance_ratio": 10, "stage1.batch_size": 32}))
    config = planned.runs[0].config
    assert (config.recipe, config.mode, config.model.name) == ("images/logit-adjustment", "scratch", "resnet32")
    assert (config.stage1.epochs, config.stage1.batch_size, config.data.image_size) == (100, 32, 32)
    assert planned.spec["runs"]["auto"]["recipe"] == "images/logit-adjustment"
    assert plan_grid(planned.spec).runs == planned.runs  # grid.yaml makes the same runs, whatever it sees next time
    short = plan_grid(spec(runs=auto, epochs=3, set={"data.imbalance_ratio": 10})).runs[0].config
    assert (short.stage1.epochs, short.stage1.batch_size) == (3, 64)
    with pytest.raises(LongtailError, match=r"model\.name.*vary"):
        plan_grid(spec(runs=auto, vary={"model.name": ["resnet20", "resnet32"]}))
    with pytest.raises(LongtailError, match=r"data\.imbalance_ratio.*vary"):
        plan_grid(spec(runs=auto, vary={"data.imbalance_ratio": [10, 1]}))  # nothing is rare in the images as they are


def test_nested_options_are_those_by_dotted_names() -> None:
    runs = {"auto": {"recipe": "auto", "set": {"mode": "scratch", "stage1": {"epochs": 5, "optimizer": {"lr": 0.2}}}}}
    nested = {"data": {"imbalance_ratio": 10, "source": "digits"}, "training": {"precision": "bf16"}}
    planned = plan_grid(spec(runs=runs, source="", epochs=None, set=nested))
    config = planned.runs[0].config
    assert (config.stage1.epochs, config.stage1.optimizer.lr) == (5, 0.2)
    assert (config.data.source, config.data.imbalance_ratio, config.training.precision) == ("digits", 10, "bf16")
    assert "training.precision" not in planned.spec["runs"]["auto"]["set"]
    assert plan_grid(planned.spec).runs == planned.runs


def test_the_file_of_a_grid_makes_it_again_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    made = plan_grid(spec("grid", set=SMALL | {"model.weights": "runs/base"}))
    monkeypatch.chdir("elsewhere")
    again = plan_grid(made.spec)
    assert again.out == tmp_path / "grid"
    assert [run.config for run in again.runs] == [run.config for run in made.runs]


def test_a_file_becomes_runs_by_configuration_and_seed(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        """
        source: digits
        out: runs/grid
        seeds: [3, 5]
        epochs: 20
        baseline: gcl
        set: {data.few: 7, stage1.optimizer.lr: 0.3}
        runs:
          ce: {recipe: cifar-lt/ce}
          gcl: {recipe: cifar-lt/gcl, epochs: 40, set: {stage1.optimizer.lr: 0.2, stage1.loss.options.noise: 0.3}}
        """
    )
    grid = plan_grid(read_grid(file))
    assert [(run.name, run.seed) for run in grid.runs] == [("ce", 3), ("ce", 5), ("gcl", 3), ("gcl", 5)]
    assert grid.runs[3].folder == Path("runs/grid/gcl/seed-5")
    assert {run.baseline for run in grid.runs} == {"gcl"}
    ce, gcl = grid.runs[0].config, grid.runs[3].config
    assert (ce.stage1.epochs, gcl.stage1.epochs) == (20, 40)
    assert (ce.stage1.optimizer.lr, gcl.stage1.optimizer.lr) == (0.3, 0.2)
    assert (ce.data.few, gcl.data.few) == (7, 7)
    assert gcl.stage1.loss.options["noise"] == 0.3
    assert (ce.training.seed, gcl.training.seed) == (3, 5)
    assert (ce.model.head, gcl.model.head) == ("linear", "cosine")


def test_the_words_of_the_command_line_plan_the_same_as_a_file() -> None:
    words = recipe_grid(
        "digits",
        ["cifar-lt/ce", "cifar-lt/gcl"],
        seeds=2,
        epochs=4,
        batch_size=32,
        baseline="cifar-lt/gcl",
        options=["data.few=7", "stage1.loss.options={scale: 9}"],
    )
    by_hand = {
        "source": "digits",
        "seeds": 2,
        "epochs": 4,
        "batch_size": 32,
        "baseline": "gcl",
        "runs": RUNS,
        "set": {"data.few": 7, "stage1.loss.options": {"scale": 9}},
    }
    assert plan_grid(words | {"out": "x"}) == plan_grid(by_hand | {"out": "x"})
    both = recipe_grid("digits", ["cifar-lt/ce", "demo/ce"])["runs"]
    assert both == {"cifar-lt-ce": {"recipe": "cifar-lt/ce"}, "demo-ce": {"recipe": "demo/ce"}}


def test_varied_options_multiply_the_runs_and_the_resolved_grid_plans_them_again() -> None:
    vary = {"data.imbalance_ratio": [10, 5], "stage1.optimizer.lr": [0.1, 0.2]}
    grid = plan_grid(spec(vary=vary))
    assert len(grid.runs) == 8
    last = grid.runs[-1]
    assert last.name == "gcl-imbalance_ratio=5,lr=0.2"
    assert (last.config.data.imbalance_ratio, last.config.stage1.optimizer.lr) == (5, 0.2)
    assert plan_grid(yaml.safe_load(yaml.safe_dump(grid.spec))) == grid


def test_a_grid_that_was_moved_goes_on_where_it_is(tmp_path: Path) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    run = now / "ce" / "seed-0"
    run.mkdir(parents=True)
    (now / "grid.yaml").write_text(yaml.safe_dump(plan_grid(spec(out=str(before))).spec))
    assert read_grid(now / "grid.yaml")["out"] == str(before)  # it holds no run yet
    (run / "config.yaml").touch()
    assert read_grid(now / "grid.yaml")["out"] == str(now)
    before.mkdir()
    assert read_grid(now / "grid.yaml")["out"] == str(now)
    (now / "grid.yaml").rename(now / "longer.yaml")
    assert read_grid(now / "longer.yaml")["out"] == str(before)


@pytest.mark.parametrize(
    ("vary", "baseline", "expected"),
    [
        ({}, "", {"ce": "ce", "gcl": "ce"}),
        ({}, "gcl", {"ce": "gcl", "gcl": "gcl"}),
        # Other images: each is compared with the baseline on its own.
        (
            {"data.imbalance_ratio": [10, 5]},
            "gcl",
            {f"{name}-imbalance_ratio={r}": f"gcl-imbalance_ratio={r}" for name in RUNS for r in (10, 5)},
        ),
        # The same images: all are compared with one.
        (
            {"stage1.batch_size": [8, 9]},
            "",
            {f"{name}-batch_size={b}": "ce-batch_size=8" for name in RUNS for b in (8, 9)},
        ),
        (
            {"stage1.batch_size": [8, 9]},
            "gcl-batch_size=9",
            {f"{name}-batch_size={b}": "gcl-batch_size=9" for name in RUNS for b in (8, 9)},
        ),
    ],
)
def test_the_baseline_of_each_run(vary: dict[str, Any], baseline: str, expected: dict[str, str]) -> None:
    grid = plan_grid(spec(vary=vary, baseline=baseline))
    assert {run.name: run.baseline for run in grid.runs} == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 3}, "'seeds'"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": "many"}, "seeds"),
        ({"seeds": 10**9}, "fewer seeds"),
        ({"epochs": 0}, "epochs"),
        ({"vary": {"data.few": list(range(200)), "data.many": list(range(200))}}, "fewer seeds"),
        ({"runs": {"a": {"recipe": "a" * 200_000}}}, "unknown recipe"),
        ({"source": ""}, "no images"),
        ({"out": ""}, "--out DIR"),
        ({"runs": {}}, "runs"),
        ({"baseline": "gc"}, "'gcl'"),
        ({"set": {"data.imbalance_rato": 3}}, "'data.imbalance_ratio'"),
        ({"set": {"data.few": "x"}}, "data.few"),
        ({"set": {"data.image_size": 0}}, "--data.image_size"),
        ({"set": {"training.seed": 3}}, "use seeds"),
        ({"vary": {"data.few": []}}, "data.few"),
        ({"vary": {"data.few": 3}}, "vary"),
        ({"vary": {"data.few": [1, 1]}}, "'ce-few=1'"),
        ({"runs": {"ce": {}}}, "run 'ce'"),
        ({"runs": {"ce": None}}, "runs.ce"),
        ({"runs": {"ce": "cifar-lt/ce"}}, "runs.ce"),
        ({"runs": {"ce": {"recip": "cifar-lt/ce"}}}, "'runs.ce.recipe'"),
        ({"runs": {"ce": {"something": 1}}}, "unknown option 'runs.ce.something'"),
        ({"runs": {"ce": {"stage1.epochs": 3}}}, "below runs.ce.set"),
        ({"stage1.epochs": 3}, "below set"),
        ({"runs": {"ce": {"stage1": {"epochs": 3}}}}, "below runs.ce.set"),
        ({"runs": {"ce": {"recipe": "cifar-lt/cee"}}}, "'cifar-lt/ce'"),
        ({"runs": {"a/b": {"recipe": "cifar-lt/ce"}}}, "'a/b'"),
        ({"runs": {"ce": {"recipe": "cifar-lt/ce", "set": {"stage1.loss.options.x": 1}}}}, "'x'"),
    ],
)
def test_a_grid_that_cannot_be_planned_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match=re.escape(words)) as caught:
        plan_grid(spec(tmp_path / "out") | changes, "my.yaml")
    assert "my.yaml" in str(caught.value)
    assert "__" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_grid_of_the_documentation_can_be_planned() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    example = page.split("longtail compare --grid grid.yaml")[1].split("```yaml\n")[1].split("```")[0]
    grid = plan_grid(yaml.safe_load(example), "docs/training.md")
    assert len({run.name for run in grid.runs}) == 6
    assert {run.seed for run in grid.runs} == {0, 1, 2}
    assert {run.baseline for run in grid.runs} == {"ce-lr=0.1"}
    assert len(yaml.safe_load(example).keys() ^ GridSpec.__dataclass_fields__.keys()) == 0


@pytest.mark.parametrize(("text", "words"), [(None, "read"), ("a: [", "YAML"), ("- 1", "grid")])
def test_a_file_that_is_not_a_grid(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(LongtailError, match=words):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize("options", [["novalue"], ["a=["]])
def test_a_set_that_is_not_an_option(options: list[str]) -> None:
    with pytest.raises(LongtailError, match="--set"):
        recipe_grid("digits", ["cifar-lt/ce"], options=options)


def test_a_run_is_new_started_or_finished(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[0]
    assert state_of(run) == "new"
    assert state_of(fake_run(run)) == "new"
    (run.folder / "checkpoint").mkdir()
    assert state_of(run) == "started"
    (run.folder / "metrics.json").write_text("{}")
    assert state_of(run) == "started"  # it was killed before its report, after which it drops its checkpoint
    (run.folder / "report.html").touch()
    assert state_of(run) == "finished"
    (run.folder / "report.html").unlink()
    (run.folder / "checkpoint").rmdir()
    assert state_of(run) == "finished"


def test_a_run_of_another_configuration_is_not_taken_for_this_one(tmp_path: Path) -> None:
    fake_run(plan_grid(spec(tmp_path)).runs[0], "metrics.json")
    fast = plan_grid(spec(tmp_path, set=SMALL | {"training.compile": True, "data.cache": False})).runs[0]
    assert state_of(fast) == "finished"
    other = plan_grid(spec(tmp_path, set=SMALL | {"stage1.batch_size": 7})).runs[0]
    with pytest.raises(LongtailError, match=r"--stage1\.batch_size 64.* 7: .*--out"):
        state_of(other)


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / ".config.yaml.17.tmp").write_text("a kill left this")
    assert state_of(run) == "new"
    (run.folder / "photo.png").write_text("")
    with pytest.raises(LongtailError, match=r"photo\.png"):
        run_grid(plan_grid(spec(tmp_path)), Reporter(quiet=True))
    assert not (tmp_path / "grid.yaml").exists()
