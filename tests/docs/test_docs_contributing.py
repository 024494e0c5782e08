"""The errands of CONTRIBUTING: the loss, the figure, the source and the command it adds work as they are printed."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from longtail import ClassCounts, cli, losses
from longtail.compare.comparison import compare_runs
from longtail.config.stage import LossConfig, StageConfig
from longtail.data.sources import registry
from longtail.errors import LongtailError
from longtail.losses import LOSSES, build_loss
from longtail.report.sections import order
from longtail.training.stages import assumed_prior

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Loads the file that a section of the page adds."""

    def load(heading: str) -> ModuleType:
        section = CONTRIBUTING.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        (block,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        name = re.findall(r"`src/longtail/[\w/]+/(\w+)\.py`:", section)[0]
        return load_file(f"longtail_docs_{name}", tmp_path / f"{name}.py", block, monkeypatch)

    return load


@pytest.fixture
def added(example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the added loss, with its class in the registry."""
    module = example("Adding a loss")
    monkeypatch.setitem(LOSSES, "vs", module.VSLoss)
    return module


def load_file(name: str, path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_the_added_loss_has_doctests_that_pass(added: ModuleType) -> None:
    result = doctest.testmod(added)
    assert result.attempted > 3
    assert result.failed == 0


@pytest.mark.usefixtures("added")
def test_the_added_loss_is_known_by_name() -> None:
    assert build_loss("vs", [500, 50, 5], {"gamma": 0.3}).gamma == 0.3
    with pytest.raises(LongtailError, match=r"'gama'.*'gamma'"):
        build_loss("vs", [500, 50, 5], {"gama": 0.3})


@pytest.mark.usefixtures("added")
def test_the_added_loss_is_known_to_adjust_for_the_prior() -> None:
    """Its probabilities are those of even classes: a prior asked for is put in once, not twice."""
    counts = ClassCounts([900, 90, 9])
    assert assumed_prior(StageConfig(loss=LossConfig("vs", {"gamma": 0.0})), counts) == "uniform"
    assert assumed_prior(StageConfig(loss=LossConfig("vs", {"gamma": 0.0, "tau": 0.0})), counts) == "train"


@pytest.mark.usefixtures("added")
def test_the_added_loss_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (ROOT / "tests/contracts/test_loss_contracts.py").read_text(encoding="utf-8")
    contract = load_file("longtail_docs_contract", tmp_path / "contract.py", source, monkeypatch)
    (line,) = re.findall(r"^    (Case\(.*\)),$", CONTRIBUTING, flags=re.MULTILINE)
    case = eval(line, {"Case": contract.Case, "losses": losses})
    checks = [
        check
        for name, check in vars(contract).items()
        if name.startswith("test_") and list(inspect.signature(check).parameters) == ["case"]
    ]
    assert len(checks) >= 5
    for check in checks:
        check(case)


def test_the_added_figure_is_drawn(
    example: Callable[[str], ModuleType], make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = example("Adding a figure").SECTION.build
    monkeypatch.setattr(order, "FOR_RESEARCHERS", (*order.FOR_RESEARCHERS, build))
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl")])
    section = next(section for section in order.build_sections(comparison) if section.id == "precision")
    drawn = sorted(y for trace in section.drawings[0].figure.data for y in trace.y if np.isfinite(y))
    measured = sorted(row.precision for row in comparison.rows[0].runs[0].test.per_class if row.precision is not None)
    assert drawn == pytest.approx(measured)


def test_the_added_source_is_read(
    example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.PREFIXES, "npz", example("Adding a source").load_npz)
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "a.npz",
        train_images=images,
        train_labels=np.array([[0], [0], [0], [2], [1], [2]]),
        test_images=images[:1],
        test_labels=[[2]],
    )
    data = registry.load_source(f"npz:{tmp_path / 'a.npz'}")
    assert data.counts().counts == (3, 1, 2)
    assert np.array_equal(np.asarray(data.splits["train"].image(1)), images[1])
    with pytest.raises(LongtailError, match="npz:"):
        registry.load_source(f"npz:{tmp_path / 'b.npz'}")


def test_the_added_command_runs(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "counts", example("Adding a command").counts)
    assert cli.main(["counts", "digits", "--total"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[-1].split() == ["total", "1,438"]
    assert cli.main(["counts"]) == 2
    assert cli.main(["--help"]) == 0
    assert "counts" in capsys.readouterr().out
