"""The package as a whole: what imports with torch and numpy alone, how fast it imports, and its version."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import longtail

SOURCE = Path(__file__).parents[1] / "src"
BLOCK = """
import sys
sys.path.insert(0, {source!r})
allowed = {{"torch", "numpy", "longtail"}}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {forbidden!r}:
            raise ImportError(f"{{name}} is not installed")
        return None
sys.meta_path.insert(0, Only())
"""
FORBIDDEN = {
    "accelerate",
    "datasets",
    "filelock",
    "huggingface_hub",
    "jinja2",
    "PIL",
    "plotly",
    "psutil",
    "pyarrow",
    "rich",
    "safetensors",
    "sklearn",
    "timm",
    "torchmetrics",
    "torchvision",
    "yaml",
    "pandas",
}


def run(code: str) -> str:
    text = BLOCK.format(source=str(SOURCE), forbidden=FORBIDDEN) + code
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_losses_samplers_and_counts_need_torch_and_numpy_alone() -> None:
    code = """
from longtail import ClassCounts
from longtail.losses import GCLLoss, KPSLoss, FBLoss, AngularGCLLoss, FeatureNoiseLoss, LDAMLoss, FocalLoss
from longtail.losses import BalancedSoftmaxLoss, LogitAdjustedLoss, ClassBalancedLoss
from longtail.data.samplers import LongTailSampler
from longtail.data import class_probabilities
import torch
counts = ClassCounts([50, 5])
loss = GCLLoss(counts)(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
print(bool(loss.isfinite()), len(LongTailSampler([0, 0, 1], 2)), class_probabilities(counts, "cben").sum().item())
"""
    assert run(code).split()[:2] == ["True", "3"]


def test_the_guard_of_that_test_guards() -> None:
    with pytest.raises(AssertionError, match="installed"):
        run("import longtail.data.sources.registry, datasets")


def test_importing_the_package_and_its_command_line_loads_nothing_heavy() -> None:
    heavy = {"torch", "datasets", "timm", "plotly", "pydantic", "yaml"}
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import longtail, longtail.cli; "
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution() -> None:
    assert longtail.__version__ == version("longtail")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ClassCount'"):
        longtail.ClassCount  # noqa: B018


@pytest.mark.parametrize("name", ["longtail", "longtail.data", "longtail.losses", "longtail.models", "longtail.report"])
def test_public_names_are_listed(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, public) is not None for public in package.__all__)
