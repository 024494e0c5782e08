"""A small portfolio: three finalists, of which the simplest is chosen, and two candidates dropped early."""

from __future__ import annotations

from dataclasses import replace

from longtail.run.portfolio import CandidateResult, Portfolio


def candidate(name, accuracy, balanced, *, folds=3, adjustments=(), groups=(0.9, 0.8, 0.7), **options):
    """A candidate with figures of its own, and intervals of two points to each side."""
    return CandidateResult(
        **{
            "name": name,
            "loss": name,
            "head": "cosine",
            "options": {},
            "lr": 0.001,
            "weight_decay": 0.0,
            "retrained": False,
            "tau": 0.5,
            "folds": folds,
            "score": balanced,
            "interval": (balanced - 0.02, balanced + 0.02),
            "accuracy": accuracy,
            "accuracy_interval": (accuracy - 0.02, accuracy + 0.02),
            "balanced_accuracy": balanced,
            "balanced_interval": (balanced - 0.02, balanced + 0.02),
            "groups": dict(zip(("many", "medium", "few"), groups, strict=True)),
            "adjustments": ((0.5, accuracy, balanced), *adjustments),
            "seconds": 1.5,
        }
        | options
    )


def fake_portfolio(**options):
    """``kps`` is highest, ``weighted`` as good and simpler, ``gcl`` the most accurate one without an adjustment."""
    finalists = (
        candidate("kps", 0.75, 0.80, adjustments=[(0.0, 0.82, 0.75)], behind=0.0, behind_error=0.0),
        candidate("weighted", 0.78, 0.798, adjustments=[(0.0, 0.80, 0.76)], behind=0.002, behind_error=0.01),
        candidate("gcl", 0.70, 0.77, adjustments=[(0.0, 0.86, 0.70)], behind=0.03, behind_error=0.01),
    )
    # The one fold of the first round was easier: ten points of balanced accuracy, two of accuracy.
    first_round = tuple(
        replace(
            each,
            folds=1,
            score=each.score + 0.1,
            accuracy=each.accuracy + 0.02,
            balanced_accuracy=each.balanced_accuracy + 0.1,
            adjustments=tuple((tau, accuracy + 0.02, balanced + 0.1) for tau, accuracy, balanced in each.adjustments),
            behind=None,
            behind_error=None,
        )
        for each in finalists
    )
    dropped = (candidate("ldam-drw", 0.72, 0.86, folds=1), candidate("fbl", 0.995, 0.70, folds=1))
    fields = {
        "metric": "balanced",
        "folds": 3,
        "seed": 0,
        "images": 1200,
        "epochs": 40,
        "batch_size": 256,
        "candidates": (*finalists, *dropped),
        "first_round": first_round,
        "chosen": 1,
        "seconds": 20.0,
    }
    return Portfolio(**fields | options)
