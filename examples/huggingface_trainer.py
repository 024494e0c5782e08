"""Hugging Face Trainer with a loss and a sampler of longtail; lines marked CHANGED are all that is new."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from digits import SmallNetwork, long_tailed_digits, recalls
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from longtail import ClassCounts  # CHANGED
from longtail.data import LongTailSampler  # CHANGED
from longtail.integrations.features import ReadFeatures  # CHANGED
from longtail.integrations.transformers import TrainerCriterion  # CHANGED
from longtail.losses import build_loss  # CHANGED


class Digits(Dataset[dict[str, Tensor]]):
    """Rows with the names the model takes."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class Model(SmallNetwork):
    """The network with the calling convention of transformers."""

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return logits in a dictionary; the Trainer computes the loss."""
        del labels
        return {"logits": super().forward(pixel_values)}


class BalancedTrainer(Trainer):  # CHANGED
    """A Trainer that draws by class."""  # CHANGED

    def _get_train_sampler(self, train_dataset: Digits | None = None) -> LongTailSampler:  # CHANGED
        return LongTailSampler((train_dataset or self.train_dataset).labels, 10, strategy="square-root")  # CHANGED


def main(words: Sequence[str] | None = None) -> str:
    """Train and test; returns the line that is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--loss", default="balanced-softmax")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    images, labels, test_images, test_labels = long_tailed_digits()
    model = Model()

    counts = ClassCounts.from_labels(labels, classes=10)  # CHANGED
    loss = TrainerCriterion(ReadFeatures(build_loss(options.loss, counts), model.classifier))  # CHANGED
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=2,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = BalancedTrainer(  # CHANGED: Trainer
            model,
            settings,
            train_dataset=Digits(images, labels),
            eval_dataset=Digits(test_images, test_labels),
            compute_loss_func=loss,  # CHANGED
            callbacks=[loss],  # CHANGED
        )
        trainer.train()
        logits = trainer.predict(Digits(test_images, test_labels)).predictions
    return recalls(torch.from_numpy(logits), test_labels)


if __name__ == "__main__":
    print(main())
