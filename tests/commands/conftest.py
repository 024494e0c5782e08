"""Calling the command line inside the test's own process, and one finished run that several tests look at."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from longtail.cli import main

# A network that trains in a fraction of a second, on the digits at their own size.
SMALL = (
    "--model.name",
    "plain-cnn",
    "--data.image_size",
    "8",
    "--data.augmentation",
    "none",
    "--stage1.optimizer.lr",
    "0.02",
    "--data.workers",
    "0",
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one sentence of a command that failed; a failure that says more or less than one fails the test."""
        lines = [line for line in self.err.splitlines() if line.startswith("longtail: ")]
        assert self.status != 0, f"expected a failure, got {self}"
        assert len(lines) == 1, f"expected one sentence, got {self.err!r}"
        assert self.err.endswith(f"{lines[0]}\n"), f"the sentence is not the last word: {self.err!r}"
        assert "Traceback" not in self.err
        assert not re.search(r"\w(Error|Exception)\b", self.err), f"the name of a class is no sentence: {self.err!r}"
        return lines[0].removeprefix("longtail: ")


def call(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command; an exception that leaves it fails the test with its traceback."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        status = call(*words)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


def words_to_train(folder: Path, source: object, *options: object, recipe: str = "cifar-lt/ce") -> tuple[object, ...]:
    return ("train", source, "--recipe", recipe, "--out", folder, "--epochs", 1, *SMALL, *options)


@pytest.fixture
def train(cli: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """Train on a source into ``tmp_path / "run"``, one epoch of a small network unless further options say more."""

    def run(*source_and_options: object, recipe: str = "cifar-lt/ce", out: str = "run") -> Outcome:
        return cli(*words_to_train(tmp_path / out, *source_and_options, recipe=recipe))

    return run


@pytest.fixture(scope="session")
def train_into() -> Callable[..., int]:
    """The same into a folder of one's own, for runs that several tests share; returns the status alone."""
    return lambda folder, *source_and_options: call(*words_to_train(folder, *source_and_options))


@pytest.fixture
def real_report() -> None:
    """Ask for this one to have ``train`` write the real report."""


@pytest.fixture(scope="session", autouse=True)
def _loaded_once() -> None:
    """Keep the libraries out of the collections after each stage, which would take a third of a test's time."""
    import longtail.report.page
    import longtail.training.experiment  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path that should never be made is not made in the repository either."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _quick_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests are not about the page: a second each is saved."""
    if "real_report" in request.fixturenames:
        return

    def write(runs: list[Path], out: Path) -> Path:
        out.write_text("a page")
        return out

    monkeypatch.setattr("longtail.report.page.write_report", write)


TRAINED = (
    "train",
    "digits",
    "--recipe",
    "cifar-lt/gcl",
    "--epochs",
    "2",
    "--imbalance-ratio",
    "20",
    "--seed",
    "3",
    "--data.validation_fraction",
    "0.1",
    "--data.few",
    "3",
    "--stage1.mixing",
    "none",
    "--training.precision",
    "fp32",
    *SMALL,
)


@dataclass(frozen=True)
class Finished:
    """A finished run, with the words that made it and what they wrote."""

    folder: Path
    words: tuple[str, ...]
    out: str
    err: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two stages on long-tailed digits, with a real report. Look, do not touch."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    words = (*TRAINED, "--out", str(folder))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = call(*words)
    assert status == 0, err.getvalue()
    return Finished(folder, words, out.getvalue(), err.getvalue())


@pytest.fixture
def second(finished: Finished, tmp_path: Path) -> Path:
    """The finished run under another name and recipe, a little better on every class."""
    folder = tmp_path / "second"
    shutil.copytree(finished.folder, folder)
    config = (folder / "config.yaml").read_text().replace("recipe: cifar-lt/gcl", "recipe: cifar-lt/ce")
    (folder / "config.yaml").write_text(config)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["recipe"] = "cifar-lt/ce"
    metrics["test"]["accuracy"] = metrics["test"]["accuracy"] / 2
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder
