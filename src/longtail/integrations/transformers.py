"""TrainerCriterion: a loss as the Hugging Face Trainer wants it, and the callback that tells it how far training is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longtail.device import prepare_torchvision
from longtail.integrations.features import ReadFeatures
from longtail.losses.base import LongTailLoss

prepare_torchvision()  # transformers imports torchvision
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # noqa: E402


class TrainerCriterion(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked here
    """Both ``compute_loss_func`` and a callback of ``transformers.Trainer``.

    The Trainer adds up the losses of ``gradient_accumulation_steps`` batches without dividing them, where the loss is
    the user's: each has to be its share of them all. A batch whose labels are all ignored has a share of nothing, and
    a loss of 0. That, and progress, is all this does. For a loss with class weights the shares are those of the
    numbers of images, not of their weights. The Trainer counts all labels but -100: with another ``ignore_index`` the
    losses are divided by that number.

    Args:
        loss: A loss of this package, or one in :class:`~longtail.integrations.features.ReadFeatures`.

    Example:
        >>> import torch
        >>> from longtail.losses import CrossEntropyLoss
        >>> outputs, labels = {"logits": torch.zeros(4, 2)}, torch.tensor([0, 0, 0, 1])
        >>> loss = TrainerCriterion(CrossEntropyLoss([3, 1]))
        >>> whole, half = loss(outputs, labels), loss(outputs, labels, num_items_in_batch=torch.tensor(8))
        >>> bool(whole == 2 * half)
        True
    """

    def __init__(self, loss: LongTailLoss | ReadFeatures) -> None:
        self.loss = loss
        loss.count_empty_as_zero()

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return the loss of one batch; ``outputs`` has ``logits``, or they come first."""
        logits = outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
        # Tables of a loss that the Trainer does not know follow the model to its device.
        value: Tensor = self.loss.to(logits.device)(logits, labels)
        if num_items_in_batch is None:
            return value
        items = torch.as_tensor(num_items_in_batch, device=logits.device).clamp(min=1)
        return value * (labels.ne(self.loss.ignore_index).sum() / items)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the loss's progress; the Trainer calls this before each optimizer step, and when training ends."""
        del args, control, kwargs
        # Where nothing is left to train, as after a checkpoint of more steps, it is called all the same.
        self.loss.progress = min(1.0, state.global_step / max(1, state.max_steps))

    on_train_end = on_step_begin  # leaves the loss at the progress that training reached
