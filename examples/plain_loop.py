"""A plain PyTorch loop with a loss and a sampler of longtail; lines marked CHANGED are all that is new."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from digits import SmallNetwork, long_tailed_digits, recalls
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
    parser.add_argument("--sampler", default="instance")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    images, labels, test_images, test_labels = long_tailed_digits()
    network = SmallNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)

    counts = ClassCounts.from_labels(labels, classes=10)  # CHANGED
    sampler = LongTailSampler(labels, counts, strategy=options.sampler)  # CHANGED
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, sampler=sampler)  # CHANGED
    loss = ReadFeatures(build_loss(options.loss, counts), network.classifier)  # CHANGED
    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)  # CHANGED
        loss.progress = sampler.progress = epoch / options.epochs  # CHANGED
        for pixels, target in loader:
            optimizer.zero_grad()
            loss(network(pixels), target).backward()
            optimizer.step()
    with torch.no_grad():
        return recalls(network(test_images), test_labels)


if __name__ == "__main__":
    print(main())
