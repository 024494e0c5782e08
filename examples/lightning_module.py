"""A Lightning module with a loss and a sampler of longtail; lines marked CHANGED are all that is new."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from digits import SmallNetwork, long_tailed_digits, recalls
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from longtail import ClassCounts  # CHANGED
from longtail.data import LongTailSampler  # CHANGED
from longtail.integrations.features import ReadFeatures  # CHANGED
from longtail.losses import build_loss  # CHANGED


class Digits(LightningModule):
    """A network, its loss and its optimizer."""

    def __init__(self, counts: ClassCounts, loss_name: str) -> None:
        super().__init__()
        self.network = SmallNetwork(len(counts))
        self.loss = ReadFeatures(build_loss(loss_name, counts), self.network.classifier)  # CHANGED

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        self.loss.progress = self.global_step / self.trainer.estimated_stepping_batches  # CHANGED
        pixels, target = batch
        return self.loss(self.network(pixels), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.network.parameters(), lr=2e-3)


def main(words: Sequence[str] | None = None) -> str:
    """Train and test; returns the line that is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--loss", default="balanced-softmax")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    images, labels, test_images, test_labels = long_tailed_digits()

    counts = ClassCounts.from_labels(labels, classes=10)  # CHANGED
    sampler = LongTailSampler(labels, counts, strategy="square-root")  # CHANGED; Lightning calls its set_epoch
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, sampler=sampler)  # CHANGED
    module = Digits(counts, options.loss)
    trainer = Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    with torch.no_grad():
        return recalls(module.network(test_images), test_labels)


if __name__ == "__main__":
    print(main())
