"""The examples run, on real digits, with ordinary losses and with those that depend on progress or features."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from longtail.data import LongTailSampler
from longtail.losses import FBLoss

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "plain_loop": "torch",
    "huggingface_trainer": "transformers",
    "lightning_module": "lightning",
    "timm_script": "timm",
}
DOCS = (ROOT / "docs" / "your-code.md").read_text(encoding="utf-8")


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    package = PACKAGES[request.param]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'longtail[examples]'")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module(request.param)
    for name in (request.param, "digits"):
        sys.modules.pop(name, None)


def recall(line: str) -> float:
    return float(re.findall(r"[\d.]+\d", line)[0])


@pytest.mark.parametrize("example", PACKAGES, indirect=True)
def test_an_example_learns_with_any_loss_and_says_how_far_it_is(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FBL needs both: features, which no script hands over, and progress."""
    seen: list[float] = []
    epochs: list[int] = []
    watch(monkeypatch, FBLoss, "adjust_logits", lambda self: seen.append(self.progress))
    watch(monkeypatch, LongTailSampler, "__iter__", lambda self: epochs.append(self.epoch))
    assert recall(example.main(["--epochs", "6", "--loss", "fbl"])) > 0.5
    assert seen[0] == 0
    # Of six epochs, the last one begins at 5/6; the Trainer and Lightning go on within it.
    assert max(seen) >= 0.83  # the loss keeps 5/6 in float32
    assert seen == sorted(seen)
    assert set(epochs) >= set(range(6))


@pytest.mark.parametrize("example", ["plain_loop"], indirect=True)
def test_progressive_draws_progress(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    watch(monkeypatch, LongTailSampler, "__iter__", lambda self: seen.append(self.progress))
    example.main(["--epochs", "6", "--sampler", "progressive"])
    assert seen == [epoch / 6 for epoch in range(6)]


def watch(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, note: Callable[[object], object]) -> None:
    before = getattr(kind, name)

    def noted(self: object, *args: object) -> object:
        if torch.is_grad_enabled():  # not while it is tested
            note(self)
        return before(self, *args)

    monkeypatch.setattr(kind, name, noted)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_page_shows_the_lines_that_are_new(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    new = [line.strip() for line in source.splitlines() if "# CHANGED" in line]
    assert 8 <= len(new) <= 14
    (block,) = re.findall(rf"`examples/{name}\.py`.*?```diff\n(.*?)```", DOCS, flags=re.DOTALL)
    added_lines = [line[1:].strip() for line in block.splitlines() if line.startswith("+")]
    assert added_lines == [line.partition("  # CHANGED")[0].strip() for line in new]
