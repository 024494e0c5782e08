"""Small work that is disturbed: the command that does it, its time undisturbed, and whether its result is the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from longtail.run.layout import WEIGHTS_FILE

HERE = Path(__file__).parent
LONGTAIL = [sys.executable, "-m", "longtail"]
STORE = [sys.executable, str(HERE / "flaky_store.py")]
SMALL = {
    "data.imbalance_ratio": 10,
    "data.image_size": 8,
    "data.workers": 0,
    "model.name": "plain-cnn",
    "stage1.optimizer.lr": 0.02,
    "training.device": "cpu",
    "training.precision": "fp32",
}


@dataclass(frozen=True)
class Result:
    """What came of a command.

    Attributes:
        status: Its exit status; None where it had to be killed after its time.
        seconds: Duration.
        output: All that it said.
    """

    status: int | None
    seconds: float
    output: str

    @property
    def sentences(self) -> list[str]:
        """Its own errors."""
        return [line.removeprefix("longtail: ") for line in self.output.splitlines() if line.startswith("longtail: ")]

    @property
    def sentence(self) -> str:
        """The last thing that it said."""
        lines = self.sentences or [line for line in self.output.splitlines() if line.strip()] or [""]
        return lines[-1]


class Command:
    """A command that runs, in a session of its own, its output in a file.

    Args:
        words: The command.
        folder: Where its output goes.
        environment: Variables that it has besides those of this process.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        self._begun = time.perf_counter()
        self._log = folder / f"output-{time.monotonic_ns()}"
        self._over: list[Callable[[], None]] = []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=log, env=os.environ | (environment or {}), start_new_session=True
            )

    def children(self) -> list[psutil.Process]:
        """Return the processes below it."""
        with suppress(psutil.NoSuchProcess):
            return [child for child in psutil.Process(self.process.pid).children(recursive=True) if child.is_running()]
        return []

    def when_over(self, action: Callable[[], None]) -> None:
        """Do something after its end."""
        self._over.append(action)

    def wait(self, timeout: float) -> Result:
        """Wait for its end; after ``timeout`` seconds kill it and all below it."""
        status: int | None = None
        try:
            status = self.process.wait(max(0.0, timeout - (time.perf_counter() - self._begun)))
        except subprocess.TimeoutExpired:
            for process in [*self.children(), self.process]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()
        seconds = time.perf_counter() - self._begun
        for action in self._over:
            action()
        if status:
            time.sleep(1.0)  # a process that was ended at once leaves its last words to another one
        return Result(status, seconds, self._log.read_text(errors="replace"))


def problem_of(results: Sequence[Result], *, has_agent: bool = False) -> str:
    """Return what is wrong with how commands ended, empty if nothing.

    Args:
        results: Of a command and its repetitions.
        has_agent: Whether something else has its say too, such as torchrun.
    """
    for result in results:
        if result.status is None:
            return f"no end within {result.seconds:.0f} s: {result.sentence}"
        if result.status and not has_agent and (len(result.sentences) != 1 or "Traceback" in result.output):
            return f"not one sentence: {result.output[-2000:]}"
    return "" if any(result.status == 0 for result in results) else f"never finished: {results[-1].sentence}"


class Work:
    """Something that a command does, into a folder or file that can be compared.

    Attributes:
        is_clustered: Whether it needs the address of a cluster.
        has_agent: As for :func:`problem_of`.
    """

    is_clustered, has_agent = False, False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._right: object = None

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        raise NotImplementedError

    def plain_words(self, out: Path) -> list[str]:
        """Return the command that gives the right answer: without a cluster or a store."""
        return self.words(out, "")

    def answer(self, out: Path) -> object:
        """Return what has to be the same."""
        raise NotImplementedError

    def prepare(self, address: str) -> float:
        """Do it without and with a cluster or a store, and return the seconds that the latter takes."""
        out = self.folder / "right"
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(self.plain_words(out), check=True, capture_output=True)
        self._right = self.answer(out)
        shutil.rmtree(out, ignore_errors=True)
        result = Command(self.words(out, address), self.folder).wait(600)
        if result.status != 0 or (words := self.difference(out)):
            raise RuntimeError(result.output if result.status != 0 else words)
        shutil.rmtree(out, ignore_errors=True)
        return result.seconds

    def difference(self, out: Path) -> str:
        """Return in what the result is another one, empty if in nothing."""
        try:
            answer = self.answer(out)
        except Exception as error:
            return f"no result: {type(error).__name__}: {error}"
        return "" if answer == self._right else "another result"


class Training(Work):
    """Two processes under torchrun train a small network."""

    has_agent = True

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        del address
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *("--max-restarts", "5", "--monitor-interval", "0.2", "-m", "longtail", "train", "digits"),
            *("--recipe", "cifar-lt/ce", "--epochs", "8", "--training.timeout", "1m", "--resume", "auto"),
            *options_of(SMALL),
            *("--out", str(out)),
        ]

    def answer(self, out: Path) -> object:
        """Return the weights and the predictions."""
        return weights_of(out)


class OneTraining(Training):
    """One process trains a small network."""

    has_agent = False

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        words = super().words(out, address)
        return [*LONGTAIL, *words[words.index("longtail") + 1 :]]


class Stream(Work):
    """One process trains from shards in a store that fails."""

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        del address
        return self._words([*STORE, "train", f"stream:flaky://{self._shards}"], out)

    def plain_words(self, out: Path) -> list[str]:
        """Return that from the shards themselves."""
        if not self._shards.exists():
            make = ["prepare", "digits", "--shards", str(self._shards)]
            subprocess.run([*LONGTAIL, *make], check=True, capture_output=True)
        return self._words([*LONGTAIL, "train", f"stream:{self._shards}"], out)

    def _words(self, begin: list[str], out: Path) -> list[str]:
        small = {name: value for name, value in SMALL.items() if name != "data.imbalance_ratio"}
        options = ["--recipe", "cifar-lt/ce", "--epochs", "3", "--resume", "auto", *options_of(small)]
        return [*begin, *options, "--out", str(out)]

    @property
    def _shards(self) -> Path:
        return self.folder / "shards"

    def answer(self, out: Path) -> object:
        """Return the weights."""
        return weights_of(out)


class Grid(Work):
    """A grid of two runs on a cluster."""

    is_clustered = True

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        return [*self.plain_words(out), "--ray", address]

    def plain_words(self, out: Path) -> list[str]:
        """Return that without a cluster."""
        runs = {"ce": {"recipe": "cifar-lt/ce"}, "gcl": {"recipe": "cifar-lt/gcl"}}
        file = self.folder / f"{out.name}.yaml"
        file.write_text(yaml.safe_dump({"source": "digits", "epochs": 4, "set": SMALL, "runs": runs}))
        return [*LONGTAIL, "compare", "--grid", str(file), "--out", str(out)]

    def answer(self, out: Path) -> object:
        """Return the weights and the predictions of both."""
        return [weights_of(out / name / "seed-0") for name in ("ce", "gcl")]


class Prediction(Work):
    """A run predicts digits on a cluster; two of them cannot be read."""

    is_clustered = True

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        return [*self._words(LONGTAIL, str(self.photos)), "--out", str(out), "--ray", address]

    def plain_words(self, out: Path) -> list[str]:
        """Return that without a cluster."""
        return [*self._words(LONGTAIL, str(self.photos)), "--out", str(out / "answers.csv")]

    def _words(self, program: list[str], images: str) -> list[str]:
        self._make()
        return [*program, "predict", str(self.folder / "run"), images, "--device", "cpu", "--engine", "torch"]

    @property
    def photos(self) -> Path:
        """Folder of the images."""
        return self.folder / "photos"

    def _make(self) -> None:
        if self.photos.exists():
            return
        self.photos.mkdir()
        for number, image in enumerate(load_digits().images):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(self.photos / f"{number:05}.png")
        for number in (7, 1_007):
            (self.photos / f"{number:05}.png").write_bytes(b"no image")
        train = ["train", "digits", "--recipe", "cifar-lt/ce", "--epochs", "2", *options_of(SMALL)]
        subprocess.run([*LONGTAIL, *train, "--out", str(self.folder / "run")], check=True, capture_output=True)

    def answer(self, out: Path) -> object:
        """Return path and class of each image in order, and those that could not be read."""
        table = out / "answers.csv"
        if not table.exists():
            merge = ["predict", "--merge", str(out), "--out", str(table)]
            subprocess.run([*LONGTAIL, *merge], check=True, capture_output=True)
        lines = (line.split(",")[:2] for line in table.read_text().splitlines())
        skipped = table.with_name(f"{table.name}.skipped.csv").read_text().replace("flaky://", "")
        rows = [(Path(path.replace("flaky://", "")).name, label) for path, label in lines]
        return rows, [line.split(",")[0] for line in skipped.splitlines()]


class LocalPrediction(Prediction):
    """A run predicts digits in one process."""

    is_clustered = False

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        del address
        out.mkdir(exist_ok=True)
        return self.plain_words(out)


class StorePrediction(LocalPrediction):
    """A run predicts digits from and to a store that fails."""

    def words(self, out: Path, address: str) -> list[str]:
        """Return the command."""
        del address
        out.mkdir(exist_ok=True)
        table = f"flaky://{out / 'answers.csv'}"
        return [*self._words(STORE, f"flaky://{self.photos}"), "--out", table]


def options_of(values: dict[str, object]) -> list[str]:
    """Return options as words."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def weights_of(run: Path) -> str:
    """Return a digest of the weights of a run, and of its predictions of the test images."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(run / WEIGHTS_FILE).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    predictions = pq.read_table(run / "predictions.parquet")
    for name in sorted(predictions.column_names):
        digest.update(str(predictions[name].to_pylist()).encode())
    return digest.hexdigest()
