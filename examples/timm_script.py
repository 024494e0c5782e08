"""A timm training script with a loss and a sampler of longtail; lines marked CHANGED are all that is new."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from digits import long_tailed_digits, recalls
from timm import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, TensorDataset

from longtail import ClassCounts  # CHANGED
from longtail.data import LongTailSampler  # CHANGED
from longtail.integrations.features import ReadFeatures  # CHANGED
from longtail.losses import build_loss  # CHANGED


def main(words: Sequence[str] | None = None) -> str:
    """Train and test; returns the line that is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--loss", default="balanced-softmax")
    parser.add_argument("--model", default="test_resnet")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    images, labels, test_images, test_labels = long_tailed_digits()
    images, test_images = interpolate(images, scale_factor=4), interpolate(test_images, scale_factor=4)
    model = create_model(options.model, in_chans=1, num_classes=10)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05)
    scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=options.epochs)

    counts = ClassCounts.from_labels(labels, classes=10)  # CHANGED
    sampler = LongTailSampler(labels, counts, strategy="square-root")  # CHANGED
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, sampler=sampler)  # CHANGED
    train_loss_fn = ReadFeatures(build_loss(options.loss, counts), model.get_classifier())  # CHANGED
    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # CHANGED
        train_loss_fn.progress = sampler.progress = epoch / epochs  # CHANGED
        model.train()
        losses = AverageMeter()
        for input_, target in loader:
            loss = train_loss_fn(model(input_), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(target))
        scheduler.step(epoch + 1, losses.avg)
    with torch.inference_mode():
        return recalls(model.eval()(test_images), test_labels)


if __name__ == "__main__":
    print(main())
