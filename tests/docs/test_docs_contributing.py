"""The loss that CONTRIBUTING adds: its file, its registry entry and its contract line work as they are printed."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from longtail import ClassCounts, losses
from longtail.config.schema import LossConfig, StageConfig
from longtail.errors import LongtailError
from longtail.losses.registry import LOSSES, build_loss
from longtail.training.assumed_prior import assumed_prior

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the worked example, with its class in the registry."""
    (block,) = re.findall(r"^```python\n(.*?)^```", CONTRIBUTING, flags=re.MULTILINE | re.DOTALL)
    module = load_file("longtail_docs_vs", tmp_path / "vs.py", block, monkeypatch)
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
    with pytest.raises(LongtailError, match=r"no option 'gama'\. Did you mean 'gamma'"):
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
