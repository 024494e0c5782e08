"""Stopping and going on: the same weights as a run that was never stopped, whenever and however it was stopped."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ctrl_c import CtrlC
from mode_config import SMALL, mode_config
from safetensors.torch import load_file

from longtail.config.build import build, with_options
from longtail.config.checks import check_config
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.console import Interrupted, InterruptGuard, Reporter
from longtail.errors import LongtailError
from longtail.run.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from longtail.run.model_files import load_run
from longtail.training.engine import Engine
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, StageRun

Build = Callable[..., RunConfig]
KILLS = 3
WORKER = Path(__file__).with_name("forking_worker.py")
TWO_STAGES = {
    "data": {"validation_fraction": 0.1, "augmentation": "crop-flip"},
    "model": {"name": "resnet20"},
    "training": {"precision": "fp32"},
    "stage1": {"epochs": 2, "mixing": "mixup", "batch_size": 32},
    "stage2": {"epochs": 2, "mixing": "mixup", "batch_size": 32, "optimizer": {"lr": 0.02}},
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    left, right = weights(first), weights(second)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""

    tiny = {
        "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 16},
        "stage1": {"optimizer": {"lr": 0.02}},
    }
    config = complete(build(merge(merge(base_config("cifar-lt/gcl"), tiny), TWO_STAGES)))
    out = tmp_path_factory.mktemp("straight") / "run"
    start_run(config, out, Reporter(quiet=True))
    return out


@pytest.mark.parametrize(("stage", "epoch", "step"), [(1, 0, 3), (1, 1, 1), (2, 0, 2), (2, 1, 4)])
def test_ctrl_c_saves_and_the_resumed_run_ends_with_the_same_weights(
    stage: int, epoch: int, step: int, straight: Path, small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    config = small_config("cifar-lt/gcl", **TWO_STAGES)
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(config, out, quiet, callbacks=[CtrlC(stage, epoch, step)])
    state = load_checkpoint(out)
    assert state is not None
    assert (state.values["stage"], state.values["epoch"], state.values["step"]) == (stage, epoch, step)
    metrics = resume_run(config, out, quiet)
    assert same(out, straight)
    history = [line.split(",")[:6] for line in (out / "history.csv").read_text().splitlines()]
    assert history == [line.split(",")[:6] for line in (straight / "history.csv").read_text().splitlines()]
    assert metrics["stages"].keys() == {"stage1", "stage2"}


@pytest.mark.parametrize(
    "optimizer", [{"name": "adam"}, {"name": "adamw"}, {"name": "muon"}, {"name": "muon", "sgd_lr": 0.1}]
)
def test_every_optimizer_goes_on_where_it_was(
    optimizer: dict[str, Any], small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    options = {
        "stage1": {
            "epochs": 2,
            "batch_size": 64,
            "mixing": "mixup",
            "mixing_until": 0.5,
            "image_sizes": [12, 16],
            "optimizer": {"lr": 0.002, "nesterov": False} | optimizer,
        },
        "stage2": {"epochs": 0},
    }
    config = small_config("cifar-lt/gcl", **options)
    start_run(config, tmp_path / "straight", quiet)
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, 1, 1)])
    resume_run(config, tmp_path / "run", quiet)
    assert same(tmp_path / "run", tmp_path / "straight")


def test_kill_9_at_any_moment_and_resume(
    straight: Path, small_config: Build, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """The process is killed again and again, wherever it happens to be, until it gets through."""
    out, file = tmp_path / "run", tmp_path / "config.yaml"
    file.write_text(
        yaml.safe_dump(
            asdict(
                small_config(
                    "cifar-lt/gcl", **(TWO_STAGES | {"training": {"precision": "fp32", "checkpoint_steps": 1}})
                )
            )
        )
    )
    begin = ["train", "--config", str(file), "--out", str(out), "--quiet"]
    go_on = ["train", "--resume", str(out), "--quiet"]
    killed = 0
    with subprocess.Popen(
        [sys.executable, str(WORKER)], env=clean_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for attempt in range(30):
            worker.stdin.write(("\t".join(go_on if attempt else begin) + "\n").encode())
            process, seen = int(worker.stdout.readline()), _stamp(out)
            while not select.select([worker.stdout], [], [], 0.002)[0]:
                # Let each attempt get a little further than the last one, then kill it without any warning.
                if _stamp(out) != seen and killed < KILLS:
                    time.sleep(0.03 * killed)
                    os.kill(process, signal.SIGKILL)
                    killed += 1
                    break
            ended = int(worker.stdout.readline())
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
        worker.stdin.close()
    assert killed == KILLS
    assert same(out, straight)


def _stamp(out: Path) -> float:
    """Changes when the run begins, before there is any checkpoint, and with each checkpoint."""
    path = out / "checkpoint" / "last.safetensors"
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # not written yet, or removed at the end of the run
        return float((out / "config.yaml").exists())


def test_killed_after_training_but_before_the_last_files(
    straight: Path, small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config("cifar-lt/gcl", **TWO_STAGES)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("longtail.training.experiment.save_model", _full_disk)
        with pytest.raises(OSError, match="space"):
            start_run(config, out, quiet)
    assert not (out / "metrics.json").exists()
    resume_run(config, out, quiet)
    assert same(out, straight)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_process_that_left_first_fails_no_finished_run(
    is_written: bool, small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, wait = tmp_path / "run", Engine.wait

    def wait_alone(self: Engine) -> None:
        wait(self)
        if (out / "model.json").exists():
            raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")

    monkeypatch.setattr(Engine, "wait", wait_alone)
    if not is_written:  # as another process sees it where the first one was killed
        monkeypatch.setattr("longtail.training.experiment.write_metrics", lambda *_: None)
    with nullcontext() if is_written else pytest.raises(RuntimeError, match="closed"):
        assert start_run(small_config(stage1={"epochs": 1}), out, quiet)["test"]


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("change", [{"reset_classifier": True}, {"train": "scales"}, {}])
def test_stopped_between_two_stages(
    change: dict[str, object], small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    """Stage 2 changes the classifier, or adds to it, before its first checkpoint."""
    stages = {"stage1": {"epochs": 1}, "stage2": {"epochs": 1, "train": "classifier"} | change}
    config = small_config(training={"ema_decay": 0.5}, **stages)
    start_run(config, tmp_path / "straight", quiet)
    with pytest.raises(OSError, match="space"):
        start_run(config, tmp_path / "stopped", quiet, callbacks=[FullDiskInStage2()])
    resume_run(config, tmp_path / "stopped", quiet)
    assert same(tmp_path / "straight", tmp_path / "stopped")


class FullDiskInStage2(Callback):
    def on_stage_begin(self, stage: StageRun) -> None:
        if stage.index == 2:
            _full_disk()


def test_killed_at_an_instant_of_each_kind_a_run_ends_as_one_that_was_not(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """Two stages in bfloat16, a moving average, recording, validation, mixup; the benchmark kills at every instant."""
    script = Path(__file__).parents[2] / "benchmarks" / "resume.py"
    words = [sys.executable, str(script), "--kinds", "--json", str(tmp_path / "instants.json")]
    environment = clean_environment | {"TMPDIR": str(tmp_path), "LONGTAIL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, check=False)
    rows = json.loads((tmp_path / "instants.json").read_text())
    assert {row["kind"]: row["difference"] for row in rows if row["difference"]} == {}, done.stderr
    assert {"before finish_epoch", "before train_stage", "before save_file", "os.rename .config.yaml.tmp"} <= {
        row["kind"] for row in rows
    }


def test_a_checkpoint_says_where_training_stood(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"stage1": {"epochs": 1}, "stage2": {"epochs": 1, "train": "classifier"}}
    phases = []

    def saving(folder: Path, state: TrainingState) -> None:
        phases.append((state.values["phase"], state.values["stage"]))
        save_checkpoint(folder, state)

    monkeypatch.setattr("longtail.run.checkpoint.save_checkpoint", saving)
    start_run(small_config(**stages), tmp_path / "run", quiet)
    assert phases == [("in a stage", 1), ("between stages", 2), ("in a stage", 2), ("trained", 3)]


def test_a_trained_run_without_its_checkpoint_is_not_trained_anew(
    small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    config = small_config(stage1={"epochs": 1})
    start_run(config, tmp_path / "run", quiet)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    with pytest.raises(LongtailError, match="no checkpoint"):
        resume_run(config, tmp_path / "run", quiet)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_the_moving_average_is_resumed_too(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    config = small_config(stage1={"epochs": 2, "batch_size": 32}, training={"ema_decay": 0.9})
    start_run(config, tmp_path / "straight", quiet)
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "stopped", quiet, callbacks=[CtrlC(1, 1, 2)])
    resume_run(config, tmp_path / "stopped", quiet)
    assert same(tmp_path / "straight", tmp_path / "stopped")


def test_other_images_under_the_same_name_are_refused(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    config = small_config(stage1={"epochs": 2})
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, 0, 2)])
    config = with_options(config, {"data.subset_seed": 5})
    with pytest.raises(LongtailError, match="not those"):
        resume_run(config, tmp_path / "run", quiet)


def test_a_checkpoint_of_another_model_is_refused(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    config = small_config(stage1={"epochs": 2})
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, 0, 2)])
    config = with_options(config, {"model.name": "resnet20"})
    with pytest.raises(LongtailError, match="another model"):
        resume_run(config, tmp_path / "run", quiet)


def test_a_second_ctrl_c_stops_at_once() -> None:
    with InterruptGuard() as guard:
        signal.raise_signal(signal.SIGINT)
        assert guard.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_lora_run_resumes(tmp_path: Path, quiet: Reporter) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    config = mode_config("gcl", "lora", "timm:test_vit", data=SMALL)
    check_config(config)
    start_run(config, tmp_path / "run", quiet)
    model, info = load_run(tmp_path / "run")  # an ordinary transformer
    assert info.model.name == "timm:test_vit"
    assert not any("lora" in name for name in model.state_dict())
    whole = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint" / "last.safetensors").unlink()  # back to the checkpoint before
    resume_run(config, tmp_path / "run", quiet)
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.allclose(whole[key], again[key], atol=1e-6) for key in whole)
