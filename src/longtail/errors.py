"""Errors for users, each one sentence, and "did you mean": the hint that names the nearest right word."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NEAR: Final = 0.65  # least similarity of a suggestion
_BY_PART: Final = 0.01  # a whole name wins over an equally similar last part
_OFFERED: Final = 3  # most names suggested
_COMPARED: Final = 500  # last characters of a name that are compared: the time grows with their number
_LISTED: Final = 50  # most names listed if none is similar
_PARTS: Final = re.compile(r"[./]")
_SUFFIX: Final = re.compile(r"\.(csv|tsv|txt|json|ya?ml|parquet|png|jpe?g)$")  # file suffixes, ignored

# Names of other tools for our options.
_MEANINGS: Final = {
    "batch-size": "bs b batch batches batchsize mini-batch minibatch-size train-batch-size per-device-train-batch-size",
    "epochs": "e n-epochs num-epochs num-train-epochs max-epochs max-epoch nb-epochs iterations steps max-steps",
    "optimizer.lr": "lr learning-rate learningrate base-lr initial-lr init-lr max-lr lr0 eta step-size",
    "optimizer.weight-decay": "wd decay l2 l2-penalty weightdecay regularization",
    "optimizer.name": "optimizer optimiser opt optim",
    "optimizer.layer-decay": "llrd layerwise-decay layer-lr-decay",
    "schedule.name": "schedule scheduler sched lr-scheduler lr-schedule lr-policy lrs annealing",
    "schedule.warmup-epochs": "warmup warm-up warmup-steps",
    "schedule.milestones": "lr-steps decay-epochs lr-milestones",
    "loss.name": "loss criterion objective loss-type loss-fn loss-function",
    "sampler": "sampling resample resampling oversample oversampling balanced-sampling sampling-strategy",
    "mixing": "mixup cutmix remix cmo",
    "mixing-alpha": "alpha mixup-alpha cutmix-alpha beta",
    "cached-views": "views n-views",
    "model.name": "arch a architecture backbone network net model encoder model-name",
    "model.pretrained": "pretrain imagenet-weights",
    "model.weights": "pretrained weights checkpoint ckpt init initialize finetune-from load pretrained-weights",
    "model.head": "head classifier",
    "model.adapter": "lora peft",
    "model.adapter-rank": "rank lora-rank r",
    "mode": "freeze frozen linear-probe linear-probing finetune fine-tune finetuning",
    "data.image-size": "img-size imgsz input-size size resolution crop-size image-resolution img res",
    "data.fit": "fit letterbox padding pad squash stretch keep-aspect-ratio aspect-ratio resize-mode crop-mode",
    "data.augmentation": "aug augment augmentations transforms data-augmentation",
    "data.policy": "randaugment rand-augment autoaugment auto-augment aa",
    "data.validation-fraction": "val val-split val-fraction validation validation-split val-size validation-size",
    "data.test-fraction": "test-split test-size holdout hold-out",
    "data.workers": "j num-workers n-workers nproc workers dataloader-num-workers loader-workers",
    "data.source": "data dataset data-dir data-path images root",
    "image-column": "image-col path-column image-key x-col",
    "label-column": "label-col target-column target label-key y-col class-column",
    "split-column": "split-col",
    "group-column": "group groups group-col",
    "imbalance-ratio": "ir imbalance imb-factor imb-ratio imbalance-factor",
    "folds": "k-fold kfold k-folds kfolds cv cross-validation n-splits",
    "seeds": "seed n-seeds num-seeds repeats n-repeats runs",
    "seed": "random-seed random-state manual-seed rng",
    "training.precision": "amp fp16 bf16 fp32 half dtype mixed-precision autocast use-amp",
    "training.device": "gpu gpus gpu-id cuda cpu no-cuda accelerator devices",
    "training.accumulation": "grad-accum gradient-accumulation gradient-accumulation-steps accumulate-grad-batches",
    "training.clip-norm": "clip grad-clip clip-grad gradient-clipping gradient-clip-val max-grad-norm max-norm",
    "training.ema-decay": "ema model-ema ema-rate",
    "training.validate-every": "eval-every eval-freq val-interval eval-interval val-every",
    "training.checkpoint-steps": "save-freq save-every save-steps save-interval checkpoint-every",
    "tracker": "log logger logging report-to wandb tensorboard mlflow",
    "out": "o output output-dir outdir out-dir save-dir save logdir log-dir run-dir dir folder destination work-dir",
    "resume": "continue auto-resume resume-from resume-from-checkpoint",
    "config": "c cfg conf config-file yaml",
    "recipe": "method algorithm preset",
    "quiet": "q s silent no-progress",
}
_SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(name for name, words in _MEANINGS.items() if word in words.split())
    for word in " ".join(_MEANINGS.values()).split()
}
"""Suffixes of the names that a word may mean, likeliest first; all in lower case with hyphens."""


class LongtailError(ValueError):
    """Something the user can fix; the message is one sentence that names the remedy.

    Args:
        message: The sentence, with Python arguments where the error can occur in Python: ``pretrained=False``.
        options: Parts of the message and what replaces them on the command line, such as ``--model.pretrained false``.

    Example:
        >>> error = LongtailError("set size=8.", options={"size=8": "--size 8"})
        >>> str(error), error.for_command_line()
        ('set size=8.', 'set --size 8.')
    """

    def __init__(self, message: str = "", *, options: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.options = dict(options or {})

    def for_command_line(self) -> str:
        """Return the message with command-line options in place of Python arguments."""
        text = str(self)
        for argument, option in self.options.items():
            text = text.replace(argument, option)
        return text


class UsageError(LongtailError):
    """An option with a wrong name or value; the command ends with status 2, not 1."""


LATER: Final = "try again later."
"""The end of the sentence where an image may be readable after all: the storage failed, not the image."""


class UnreadableImageError(LongtailError):
    """An image that is missing or cannot be decoded; the sentence names it."""

    @property
    def is_damage(self) -> bool:
        """Whether it is about the image, which can be left out, and not about a disk, a store or the memory.

        Example:
            >>> sentences = "'a.jpg' is damaged: fetch it again.", "'a.jpg' is not there yet: try again later."
            >>> [UnreadableImageError(sentence).is_damage for sentence in sentences]
            [True, False]
        """
        return not str(self).endswith(LATER)


class OwnRangeWarning(UserWarning):
    """Images are each scaled to 8 bits by their own range, as their type has no fixed one."""


@contextmanager
def as_usage() -> Iterator[None]:
    """Re-raise a :class:`LongtailError` as a :class:`UsageError`, for values that come from the user's options.

    Example:
        >>> with as_usage():
        ...     raise LongtailError("there is no loss 'glc'.")
        Traceback (most recent call last):
        longtail.errors.UsageError: there is no loss 'glc'.
    """
    try:
        yield
    except LongtailError as error:
        raise UsageError(str(error), options=error.options) from error


def first_line(error: BaseException) -> str:
    r"""Return the first line of another library's message, or the type of an error without one; 200 characters at most.

    Example:
        >>> first_line(ValueError("no such column\n  in table 3")), first_line(ValueError())
        ('no such column', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Quote the first names and count the others.

    Example:
        >>> listed(["a", "b"]), listed("abcdefg")
        ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    words = ", ".join(repr(name) for name in names[:shown])
    return words + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def nearest(
    name: str,
    names: Iterable[str],
    *,
    aliases: Mapping[str, Collection[str]] | None = None,
    list_all: bool = True,
    show: Callable[[str], str] = lambda choice: choice,
) -> str:
    """Return a hint such as ``" Did you mean 'gcl'?"``, or the choices where nothing is near.

    Names are compared by meaning (``lr`` in other tools is ``stage1.optimizer.lr``), by their last part, and by
    spelling, in this order. Equally similar names keep their order.

    Args:
        name: The unknown name.
        names: The valid names, most relevant first; a set is sorted alphabetically.
        aliases: Other names of each valid name, in lower case with hyphens.
        list_all: List the choices where nothing is near; else the hint is empty.
        show: Turns a suggested name into what to type.

    Example:
        >>> nearest("glc", ["gcl", "kps"])
        " Did you mean 'gcl'?"
        >>> nearest("--lr", ["--help", "--stage1.optimizer.lr", "--stage2.optimizer.lr"])
        " Did you mean '--stage1.optimizer.lr' or '--stage2.optimizer.lr'?"
        >>> nearest("clouded", ["gcl", "kps"], aliases={"gcl": ["clouded"]})
        " Did you mean 'gcl'?"
        >>> nearest("zzz", ["gcl", "kps"])
        ' Known: gcl, kps.'
    """
    choices = sorted(names) if isinstance(names, Set) else list(dict.fromkeys(names))
    ranks = {choice: _nearness(_plain(name), _plain(choice), (aliases or {}).get(choice, ())) for choice in choices}
    best = max(ranks.values(), default=(0.0, 0.0))
    if best[0] < _NEAR:
        more = f", ... ({len(choices)} in all)" if len(choices) > _LISTED else ""
        return f" Known: {', '.join(sorted(choices)[:_LISTED])}{more}." if list_all else ""
    near = [choice for choice in choices if ranks[choice] == best]
    *others, last = [repr(show(choice)) for choice in near[: _OFFERED if best[0] >= 1 else 1]]  # one for a misspelling
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name[-_COMPARED:].lstrip("-").replace("_", "-").lower())


def _nearness(asked: str, choice: str, aliases: Collection[str]) -> tuple[float, float]:
    """Similarity of a name, 1 or more if meaning or last part agree; then that of the whole name if it has parts."""
    word, end = (_PARTS.split(name)[-1] for name in (asked, choice))
    whole = difflib.SequenceMatcher(None, asked, choice).ratio()
    in_all = whole if word != asked else 0.0
    if choice == asked:
        return 3.0, in_all
    if word == end or word in aliases:
        return 2.0, in_all
    for number, meaning in enumerate(_SYNONYMS.get(word, ())):
        if f".{choice}".endswith(f".{meaning}"):
            return 2.0 - _BY_PART * number, in_all
    return max(difflib.SequenceMatcher(None, word, end).ratio() - _BY_PART, whole), in_all


def resume_hint(run: str | Path) -> str:
    """Return the command that continues a run, ready to be pasted into a shell.

    Example:
        >>> resume_hint("my runs/a")
        "longtail train --resume 'my runs/a'"
    """
    return f"longtail train --resume {shlex.quote(str(run))}"
