"""The data of all examples: scikit-learn's handwritten digits, cut long-tailed, as plain tensors."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score
from torch import Tensor, nn

from longtail.device import prepare_torchvision

prepare_torchvision()  # transformers and timm import torchvision; needed only where that does not fit torch


class SmallNetwork(nn.Module):
    """Two convolutions and a linear classifier: images (N, 1, 8, 8) to logits (N, C)."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 3 * 3, 64),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.body(pixels))


def long_tailed_digits(largest: int = 120, imbalance_ratio: float = 40.0) -> tuple[Tensor, ...]:
    """Return training images (N, 1, 8, 8) in [0, 1] and labels, 120 zeros down to 3 nines; then those for testing."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(bunch.target)
    train, test = [], []
    for digit in range(10):
        rows = torch.nonzero(labels == digit).flatten()
        count = int(largest * imbalance_ratio ** (-digit / 9))
        train.append(rows[:count])
        test.append(rows[-50:])
    first, second = torch.cat(train), torch.cat(test)
    return images[first], labels[first], images[second], labels[second]


def recalls(logits: Tensor, labels: Tensor) -> str:
    """Return the mean recall of all classes and of the three smallest, as one line."""
    each = recall_score(labels.numpy(), logits.argmax(dim=1).numpy(), average=None)
    return f"mean recall {each.mean():.3f}, of the three smallest classes {each[-3:].mean():.3f}"
