"""The whole run against a loop that anybody could have written: the same weights, step for step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.decode import CenterCrop
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.samplers import ShuffleSampler
from longtail.device import step_seed
from longtail.models.model import build_model
from longtail.training.experiment import start_run
from longtail.training.prepared_data import prepare_data

FACTORS = [1.0, 1.0, 0.1, 0.01]  # of the learning rate, by epoch


# Few steps for the deep one: a difference in the last bit of a pixel grows about tenfold at each of its first steps.
@pytest.mark.parametrize(
    ("network", "epochs", "batch_size", "lr"), [("plain-cnn", 4, 32, 0.05), ("resnet20", 1, 256, 1e-3)]
)
def test_a_run_without_augmentation_is_the_plain_loop(
    small_config: Callable[..., RunConfig],
    quiet: Reporter,
    tmp_path: Path,
    network: str,
    epochs: int,
    batch_size: int,
    lr: float,
) -> None:
    """Pixels, order of images, learning rates, weight decay, momentum, the short last batch, batch norm, accuracy."""
    config = small_config(
        data={"augmentation": "none"},
        model={"name": network},
        stage1={
            "epochs": epochs, "batch_size": batch_size, "optimizer": {"lr": lr, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "multistep", "milestones": [2, 3], "factors": [0.1, 0.01]},
        },
    )  # fmt: skip
    accuracy = start_run(config, tmp_path / "run", quiet)["test"]["accuracy"]
    trained = load_file(tmp_path / "run" / "model.safetensors")
    plain, expected = plain_run(config)
    assert all(torch.allclose(trained[key], plain[key], rtol=1e-3, atol=1e-4) for key in plain)
    assert accuracy == pytest.approx(expected, abs=0.003)  # rounding may turn an undecided image or two


def plain_run(config: RunConfig) -> tuple[dict[str, torch.Tensor], float]:
    """Written from PyTorch's documentation; of ours it takes the pixels, the first weights and the order of images."""
    prepared = prepare_data(config.data)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.data.mean, config.data.std))
    images, labels = {}, {}
    for name in ("train", "test"):
        split = prepared.data.splits[name]
        images[name] = (decode_all(Decoder(split, CenterCrop(config.data.image_size))) / 255 - mean) / std
        labels[name] = torch.tensor(split.labels)
    torch.manual_seed(step_seed(config.training.seed, 0))
    model = build_model(config.model.name, prepared.counts.num_classes, in_size=config.data.image_size)
    order = ShuffleSampler(labels["train"], seed=step_seed(config.training.seed, 1, 2))
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    for epoch, factor in enumerate(FACTORS[: config.stage1.epochs]):
        optimizer.param_groups[0]["lr"] = config.stage1.optimizer.lr * factor
        order.set_epoch(epoch)
        for rows in torch.tensor(list(order)).split(config.stage1.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images["train"][rows]), labels["train"][rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(images["test"]).argmax(1) == labels["test"]).float().mean().item()
    return model.state_dict(), right
