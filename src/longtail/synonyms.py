"""Synonyms of options and methods in other tools and papers, for "did you mean" hints."""

from __future__ import annotations

from typing import Final

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
    "ce": "cross-entropy crossentropy softmax erm baseline plain vanilla",
    "cross-entropy": "ce crossentropy softmax erm",
    "balanced-softmax": "bs bsce bsl balanced-ce",
    "logit-adjustment": "la logit-adjust logit-adjusted",
    "ldam-drw": "ldam drw",
    "mixup-crt": "crt decoupling decoupled",
}
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(name for name, words in _MEANINGS.items() if word in words.split())
    for word in " ".join(_MEANINGS.values()).split()
}
"""Suffixes of the names that a word may mean, likeliest first; all in lower case with hyphens."""
