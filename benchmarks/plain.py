"""The plain PyTorch way, as most people write it: the reference for ours, for speed and for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from longtail.device import prepare_torchvision

prepare_torchvision()
from torchvision import transforms  # noqa: E402  (after the fix above)


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images as PIL objects, each cropped, flipped and normalized by itself."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], mean: list[float], std: list[float], *, train: bool
    ) -> None:
        self.images, self.labels = images, labels
        side = images.shape[1]
        changes = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()] if train else []
        self.transform = transforms.Compose([*changes, transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain_loader(data: PlainImages, batch_size: int, *, workers: int, shuffle: bool, pin: bool = False) -> DataLoader:
    """The usual DataLoader, whose workers live on from epoch to epoch."""
    return DataLoader(
        data, batch_size, shuffle=shuffle, num_workers=workers, pin_memory=pin, persistent_workers=workers > 0
    )


def endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    """Epoch after epoch of a loader."""
    while True:
        yield from loader


def plain_steps(
    model: nn.Module, loader: Iterable[list[Tensor]], optimizer: torch.optim.Optimizer, device: torch.device
) -> Iterator[int]:
    """Train in float32, eagerly, asking for the loss at each step; yield the images of each."""
    model.train()
    running = 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()
        yield len(images)


def tuned_steps(
    model: nn.Module, loader: Iterable[list[Tensor]], optimizer: torch.optim.Optimizer, device: torch.device
) -> Iterator[int]:
    """The same with what tuning guides advise: mixed precision, channels last, copies that do not block."""
    model.train()
    for images, labels in loader:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        yield len(images)


@torch.no_grad()
def plain_accuracy(model: nn.Module, loader: Iterable[list[Tensor]], device: torch.device) -> float:
    """Share of right answers."""
    model.eval()
    right = total = 0
    for images, labels in loader:
        right += int((model(images.to(device)).argmax(1) == labels.to(device)).sum())
        total += len(labels)
    return right / total
