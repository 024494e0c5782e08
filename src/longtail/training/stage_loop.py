"""The epochs of one stage: learning rate, order of images, saving, stopping; the steps themselves are the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from longtail.config.schedule import learning_rate
from longtail.config.schema import StageConfig
from longtail.console import Bar, Reporter
from longtail.data.loading.loaders import count_batches
from longtail.data.samplers import EpochSampler
from longtail.training.interrupt import Interrupted, InterruptGuard
from longtail.training.meter import Meter
from longtail.training.train_epoch import Pass, stop_on_nan, train_epoch

AGREE_STEPS = 10  # several processes ask each other this often whether to stop


@dataclass
class StageLoop:
    """Everything that happens between the first and the last epoch of a stage.

    Attributes:
        index: 1 or 2.
        stage: Its configuration.
        work: What the engine trains.
        sampler: The order of the images.
        guard: Whether the user asked to stop.
        reporter: Tells the user what happens.
        checkpoint_steps: Also save every so many steps; 0 saves at the end of epochs only.
        save: Called with finished epochs, steps of the next one, and the running sums.
        record: Called with the row of a finished epoch.
    """

    index: int
    stage: StageConfig
    work: Pass
    sampler: EpochSampler
    guard: InterruptGuard
    reporter: Reporter
    checkpoint_steps: int
    save: Callable[[int, int, Meter], None]
    record: Callable[[dict[str, Any]], None]
    _saving: float = field(default=0.0, init=False)  # seconds of this epoch that checkpoints took

    def run(self, epoch: int = 0, step: int = 0, sums: Tensor | None = None) -> None:
        """Train from a step of an epoch to the end of the stage.

        Args:
            epoch: First epoch, from 0.
            step: First step of that epoch.
            sums: Running sums of its steps before that one.

        Raises:
            Interrupted: The user asked to stop; the checkpoint is written.
        """
        with self.reporter.bar(f"stage {self.index}", self.stage.epochs * self.steps) as bar:
            for current in range(epoch, self.stage.epochs):
                self._run_epoch(current, step, sums, bar)
                step, sums = 0, None

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return count_batches(len(self.sampler), self._local)

    @property
    def _local(self) -> int:
        return self.work.engine.local_batch_size(self.stage.batch_size)

    def _run_epoch(self, epoch: int, first: int, sums: Tensor | None, bar: Bar) -> None:
        lr = learning_rate(self.stage.schedule, self.stage.optimizer.lr, epoch, self.stage.epochs)
        for group in self.work.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.sampler.set_epoch(epoch)
        self.sampler.progress = epoch / self.stage.epochs
        meter = self.work.engine.new_meter()
        if sums is not None and self.work.engine.is_main:  # the sums are those of all processes together
            meter.start_from(sums)
        self._saving = 0.0
        begun = time.perf_counter()
        rows = self.sampler.indices()[first * self._local :]
        train_epoch(self.work, rows, epoch, first, meter, lambda done: self._after_step(epoch, done, meter, bar))
        self.record(self._row(epoch + 1, lr, meter, time.perf_counter() - begun - self._saving, len(rows)))
        self.save(epoch + 1, 0, meter)
        if epoch + 1 < self.stage.epochs and self._all_agree(AGREE_STEPS):
            raise Interrupted

    def _after_step(self, epoch: int, done: int, meter: Meter, bar: Bar) -> None:
        if done % AGREE_STEPS == 0 or done == self.steps:
            note = f"epoch {epoch + 1}/{self.stage.epochs}"
            if meter.mean_loss is not None:
                note += f"  loss {meter.mean_loss:.3f}"
            bar.update(epoch * self.steps + done, note)
        if done == self.steps:  # the end of the epoch saves, once its row is recorded
            return
        stop = self._all_agree(done)
        if stop or (self.checkpoint_steps and done % self.checkpoint_steps == 0):
            stop_on_nan(self.work, meter, epoch)  # before the good checkpoint is replaced
            begun = time.perf_counter()
            self.save(epoch, done, meter)
            self._saving += time.perf_counter() - begun
        if stop:
            raise Interrupted

    def _all_agree(self, step: int) -> bool:
        """Whether to stop now: several processes have to stop at the same step."""
        engine = self.work.engine
        if engine.world_size == 1:
            return self.guard.requested
        if step % AGREE_STEPS:
            return False
        return bool(engine.sum(torch.tensor(float(self.guard.requested), device=engine.device)).item())

    def _row(self, done: int, lr: float, meter: Meter, seconds: float, local_images: int) -> dict[str, Any]:
        engine = self.work.engine
        loss, correct, images, _ = engine.sum(meter.sums).tolist()
        waited = engine.sum(torch.tensor(self.work.loader.waited, device=engine.device)).item() / engine.world_size
        return {
            "stage": self.index,
            "epoch": done,
            "progress": round(done / self.stage.epochs, 6),
            "learning_rate": lr,
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "seconds": round(seconds, 3),
            "images_per_second": round(local_images * engine.world_size / seconds, 1),
            "waiting_share": round(min(waited / seconds, 1.0), 4),
        }
