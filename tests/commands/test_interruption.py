"""Runs that stop in the middle: no space left, Ctrl-C, a checkpoint that does not fit; and how they go on."""

from __future__ import annotations

import errno
import functools
import importlib
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ctrl_c import CtrlC
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file

from longtail.run.layout import read_config
from longtail.run.lock import lock_file

Call = Callable[..., Any]
SHORT = ("--imbalance-ratio", 50, "--stage1.epochs", 3)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_under_safetensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def same_weights(run: Path, other: Path) -> bool:
    first, second = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def uninterrupted(train_into: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it would have been. Look, do not touch."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train_into(folder, "digits", *SHORT) == 0
    return folder


# --- no space left ----------------------------------------------------------------------------------------------------


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, fail: Callable[..., None] = full_disk) -> None:
    """Let the function fail for want of space from its ``call``-th call on."""
    module, _, attribute = name.rpartition(".")
    original = getattr(importlib.import_module(module), attribute)
    calls = itertools.count()

    def function(*args: Any, **options: Any) -> Any:
        return fail() if next(calls) >= call else original(*args, **options)

    monkeypatch.setattr(name, function)


@pytest.mark.parametrize(
    ("function", "call", "fail"),
    [
        ("longtail.run.checkpoint.save_file", 1, full_disk_under_safetensors),  # the second checkpoint
        ("longtail.run.tables.write_atomically", 1, full_disk),  # the history
        ("longtail.run.result.write_json", 0, full_disk),  # the metrics, when all is trained
    ],
)
def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_can_go_on(
    train: Call, cli: Call, uninterrupted: Path, tmp_path: Path, function: str, call: int, fail: Callable[..., None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, function, call, fail)
        complaint = train("digits", *SHORT).complaint
    assert "space" in complaint
    assert f"longtail train --resume {tmp_path / 'run'}" in complaint
    assert list(load_file(tmp_path / "run" / "checkpoint" / "last.safetensors"))
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not list((tmp_path / "run").rglob("*.tmp"))
    resumed = cli("train", "--resume", tmp_path / "run")
    assert resumed.status == 0, resumed.err
    assert same_weights(tmp_path / "run", uninterrupted)


def test_a_full_disk_at_the_start_leaves_nothing_behind(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, "longtail.files.write_atomically", 0)
    assert "space left" in train("digits", *SHORT).complaint.lower()
    assert not (tmp_path / "run").exists()


def test_a_full_disk_under_the_report_leaves_a_run_that_can_be_completed(
    train: Call, cli: Call, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longtail.report.page.write_report", full_disk)
        stopped = train("digits", *SHORT)
    assert all(word in stopped.complaint for word in ("is complete", "No space left"))
    assert f"longtail train --resume {tmp_path / 'run'}" in stopped.complaint
    assert "test accuracy" in stopped.out
    assert cli("train", "--resume", tmp_path / "run").status == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert same_weights(tmp_path / "run", uninterrupted)


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@needs_dev_full
@pytest.mark.parametrize(
    "words", [("predict", "{run}", "{photos}", "--out"), ("compare", "{run}", "--csv"), ("report", "{run}", "--out")]
)
def test_writing_results_to_a_full_device(
    cli: Call, finished: Any, make_folder: Call, tmp_path: Path, words: tuple[str, ...], real_report: None
) -> None:
    photos, full = make_folder({"cat": 2}), tmp_path / "full"
    full.symlink_to("/dev/full")  # never the device itself: root could replace it
    complaint = cli(*(word.format(run=finished.folder, photos=photos) for word in words), full).complaint
    assert f"{full} " in complaint
    assert os.strerror(errno.ENOSPC) in complaint
    assert full.is_char_device(), "a device is written to, never replaced"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupt_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Send the real signal after the first step of that epoch of stage 1."""
    from longtail.training.launch import start_run

    pressing = functools.partial(start_run, callbacks=[CtrlC(1, epoch, 1)])
    monkeypatch.setattr("longtail.training.launch.start_run", pressing)


def test_ctrl_c_saves_says_how_to_resume_and_resuming_ends_with_the_same_weights(
    train: Call, cli: Call, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        stopped = train("digits", *SHORT)
    assert stopped.status == 130
    last = stopped.err.splitlines()[-1]
    assert last.startswith("stopped")
    assert last.endswith(f": longtail train --resume {tmp_path / 'run'}")
    assert "Traceback" not in stopped.err
    assert not (tmp_path / "run" / "metrics.json").exists()
    resumed = cli("train", "--resume", tmp_path / "run")
    assert resumed.status == 0
    assert "stage 1, epoch 2, step 1" in resumed.err
    assert same_weights(tmp_path / "run", uninterrupted)


def test_ctrl_c_says_so_also_when_quiet(train: Call, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 0)
        stopped = train("digits", *SHORT, "--quiet")
    assert stopped.status == 130
    last = f"stopped; the checkpoint is saved. Continue with: longtail train --resume {tmp_path / 'run'}\n"
    assert stopped.err == last


def test_ctrl_c_before_training_leaves_nothing_behind(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "longtail.training.prepared_data.load_source", lambda *_, **__: signal.raise_signal(signal.SIGINT)
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    try:
        stopped = train("digits", *SHORT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stopped.status, stopped.err.splitlines()[-1]) == (130, "longtail: interrupted.")
    assert not (tmp_path / "run").exists()


# --- the same command again -------------------------------------------------------------------------------------------

AGAIN = (*SHORT, "--resume", "auto")


def test_the_same_command_begins_a_run_continues_it_and_finds_it_finished(
    train: Call, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        assert train("digits", *AGAIN).status == 130
    continued = train("digits", *AGAIN)
    assert continued.status == 0
    assert "stage 1, epoch 2, step 1" in continued.err
    assert same_weights(tmp_path / "run", uninterrupted)
    again = train("digits", *AGAIN)
    assert again.status == 0
    assert "complete already" in again.err


@pytest.mark.parametrize(
    ("extra", "option"), [(("--stage1.optimizer.lr", 0.03), "stage1.optimizer.lr"), (("--seed", 1), "training.seed")]
)
def test_other_options_do_not_continue_a_run(train: Call, uninterrupted: Path, extra: Any, option: str) -> None:
    before = (uninterrupted / "config.yaml").read_bytes()
    assert f"--{option} " in train("digits", *AGAIN, *extra, out=str(uninterrupted)).complaint
    assert (uninterrupted / "config.yaml").read_bytes() == before


def test_options_of_speed_may_change_and_the_machine_may_choose_another_precision(
    train: Call, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.device.fast_precision", lambda _: "fp16")
    assert train("digits", *AGAIN, "--training.validate_every", 3, out=str(uninterrupted)).status == 0
    asked = train("digits", *AGAIN, "--training.precision", "fp16", out=str(uninterrupted))
    assert "training.precision" in asked.complaint


def test_a_run_that_goes_on_takes_the_options_of_speed_of_now(train: Call, uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        assert train("digits", *AGAIN, "--training.timeout", "7m").status == 130
    now = ("--training.checkpoint_steps", 5, "--keep-checkpoints")
    assert train("digits", *AGAIN, *now).status == 0
    options = read_config(tmp_path / "run").training
    assert (options.timeout, options.checkpoint_steps, options.keep_checkpoints) == ("10m", 5, True)
    assert (tmp_path / "run" / "checkpoint" / "last.safetensors").is_file()
    assert same_weights(tmp_path / "run", uninterrupted)


def test_two_commands_do_not_train_one_run(train: Call, cli: Call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with FileLock(lock_file(run)):
        assert "another command" in train("digits", *SHORT).complaint
        waited = train("digits", *AGAIN, "--training.timeout", "1s")
        assert "another command" in waited.complaint
        assert "waiting" in waited.err
        assert not run.exists()
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        assert train("digits", *AGAIN).status == 130
    before = (run / "config.yaml").read_bytes()
    with FileLock(lock_file(run)):
        assert "another command" in cli("train", "--resume", run).complaint
        assert "another command" in train("digits", *AGAIN, "--training.timeout", "1s").complaint
    assert (run / "config.yaml").read_bytes() == before


def test_a_run_whose_lock_cannot_be_made_is_trained_all_the_same(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    done = train("digits", "--imbalance-ratio", 50)
    assert done.status == 0
    assert "no other command" in done.err


def test_a_folder_of_something_else_is_neither_begun_nor_continued(train: Call, cli: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    assert "exists already" in train("digits", *AGAIN).complaint
    assert "--out" in cli("train", "digits", "--resume", "auto").complaint


# --- what cannot be resumed -------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(train: Call, tmp_path: Path) -> Path:
    """A run that was stopped in its second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        assert train("digits", *SHORT).status == 130
    return tmp_path / "run"


def tamper(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: plain-cnn", "name: resnet20", "'resnet20'"),
        ("name: plain-cnn", "name: resnet23", "'resnet20'"),
        ("source: digits", "source: folder:nowhere", "--moved-to"),
        ("subset_seed: 0", "subset_seed: 1", "not those"),
        ("epochs: 3", "epohcs: 3", "'stage1.epochs'"),
        ("epochs: 3", "epochs: many", "stage1.epochs "),
        ("image_size: 8", "image_size: -8", "data.image_size "),
    ],
)
def test_a_configuration_that_does_not_fit_the_checkpoint(
    cli: Call, stopped: Path, old: str, new: str, words: str
) -> None:
    before = (stopped / "checkpoint" / "last.safetensors").read_bytes()
    tamper(stopped, old, new)
    assert words in cli("train", "--resume", stopped).complaint
    assert (stopped / "checkpoint" / "last.safetensors").read_bytes() == before


def test_damaged_checkpoints_fall_back_to_the_previous_one_then_say_so(cli: Call, stopped: Path) -> None:
    for name in ("last.safetensors", "previous.safetensors"):
        (stopped / "checkpoint" / name).write_bytes(b"torn")
    assert "is damaged" in cli("train", "--resume", stopped).complaint


def test_resume_needs_a_run(cli: Call, tmp_path: Path) -> None:
    assert "config.yaml" in cli("train", "--resume", tmp_path / "nope").complaint


def test_weights_of_another_model_are_refused_by_evaluate_and_predict(cli: Call, finished: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    text = (run / "model.json").read_text()
    (run / "model.json").write_text(text.replace("plain-cnn", "resnet20"))
    assert "another model" in cli("evaluate", run).complaint
    assert "another model" in cli("predict", run, __file__, "--out", tmp_path / "o.csv").complaint
    (run / "model.safetensors").write_bytes(b"torn")
    assert "damaged" in cli("evaluate", run).complaint


def test_a_loss_that_is_no_number_is_one_sentence(train: Call) -> None:
    complaint = train("digits", "--imbalance-ratio", 50, "--stage1.optimizer.lr", 1e30, "--stage1.epochs", 3).complaint
    assert "number" in complaint
    assert "--stage1.optimizer.lr" in complaint
