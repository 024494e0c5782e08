"""``RUN/portfolio.json``: the classifiers that were tried for a run, their figures in cross-validation, the choice."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, TypeAdapter

from longtail.config.options import Metric
from longtail.files import write_json
from longtail.formatting import figure_text
from longtail.run.layout import PORTFOLIO_FILE
from longtail.validation import read_json

PORTFOLIO_FORMAT: Final = 1


@dataclass(frozen=True)
class CandidateResult:
    """A classifier that was tried, and its figures on images that it was not trained on.

    Attributes:
        name: What it is called, for example ``kps`` or ``gcl, retrained``.
        loss: Registered name of its loss.
        head: ``linear`` or ``cosine``.
        options: Options of the loss.
        lr: Peak learning rate.
        weight_decay: L2 penalty, but not of biases (Adam), or decoupled decay (AdamW).
        retrained: Whether a second stage retrains it on class-balanced draws.
        tau: Strength of the logit adjustment after training.
        folds: Folds that it was tried on; fewer than all where it was dropped early.
        score: The metric of the choice, in [0, 1].
        interval: 95% interval of the score, [low, high].
        behind: Difference from the best score on the same images, at least 0; None where it was dropped early.
        behind_error: Standard error of that difference.
        optimizer: ``adamw`` or ``adam``.
        accuracy: Share of right answers.
        accuracy_interval: Its 95% interval, [low, high].
        balanced_accuracy: Mean recall of the classes.
        balanced_interval: Its 95% interval, [low, high].
        groups: Mean recall of each shot group that has images.
        adjustments: Each strength of the logit adjustment, with the accuracy and balanced accuracy under it.
        seconds: Time that it took: its share of that of the candidates with the same head, or with a second stage,
            which train together.
    """

    name: str
    loss: str
    head: Literal["linear", "cosine"]
    options: dict[str, Any]
    lr: float
    weight_decay: float
    retrained: bool
    tau: float
    folds: int
    score: float
    interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    balanced_interval: tuple[float, float]
    groups: dict[str, float]
    adjustments: tuple[tuple[float, float, float], ...]
    seconds: float
    behind: float | None = None
    behind_error: float | None = None
    optimizer: Literal["adam", "adamw"] = "adamw"

    @property
    def title(self) -> str:
        """Its name, with the logit adjustment after training if there is any."""
        return f"{self.name}, tau {self.tau:g}" if self.tau else self.name


@dataclass(frozen=True)
class Portfolio:
    """The candidates of a run and the choice among them.

    Attributes:
        metric: What was compared.
        folds: Number of folds of the cross-validation.
        seed: Seed of folds, order and noise.
        images: Training images that were judged.
        epochs: Epochs of each candidate; a quarter as many of a second stage.
        batch_size: Images per step.
        candidates: What was tried, the best first; those dropped early come last. None where nothing could be tried.
        first_round: The finalists with their figures in the first round, which those dropped early compare with; the
            same as the finalists where nothing was dropped.
        chosen: Position of the choice among them; -1 if there are none.
        seconds: Time that the choice took.
        asked: The sections of the configuration that the choice has changed, as they were before: what runs of several
            seeds, which may choose differently, have in common.
        repeats: How often the images were divided into folds.
        format_version: The layout of the file.
    """

    metric: Metric
    folds: int
    seed: int
    images: int
    epochs: int
    batch_size: int
    candidates: tuple[CandidateResult, ...]
    first_round: tuple[CandidateResult, ...]
    chosen: int
    seconds: float
    asked: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1
    format_version: int = field(default=PORTFOLIO_FORMAT)

    @property
    def choice(self) -> CandidateResult:
        """The candidate that was chosen."""
        return self.candidates[self.chosen]

    @property
    def finalists(self) -> tuple[CandidateResult, ...]:
        """The candidates that were tried on all folds."""
        return tuple(each for each in self.candidates if each.folds == self.folds)

    @property
    def other_end(self) -> CandidateResult | None:
        """What a choice by accuracy would give, or by balanced accuracy where accuracy was asked for.

        Of the finalists, which went on for :attr:`metric`: the best by it, with the adjustment that is best for it and
        the figures under that, without groups; None where the choice is as good by it.
        """
        swapped = self.metric == "accuracy"

        def figures(candidate: CandidateResult) -> tuple[float, float]:
            both = candidate.accuracy, candidate.balanced_accuracy
            return both[::-1] if swapped else both

        ends = (
            replace(each, tau=tau, accuracy=accuracy, balanced_accuracy=balanced, groups={})
            for each in self.finalists
            for tau, accuracy, balanced in each.adjustments
        )
        best = max(ends, key=figures)
        return best if figures(best)[0] > figures(self.choice)[0] else None

    @property
    def procedure(self) -> str:
        """How the candidates were judged, for example ``5-fold cross-validation``."""
        again = f", repeated {self.repeats} times," if self.repeats > 1 else ""
        return f"{self.folds}-fold cross-validation{again}"

    @property
    def other_metric(self) -> Metric:
        """What :attr:`other_end` is best by."""
        return "balanced" if self.metric == "accuracy" else "accuracy"


NOTHING_TRIED: Final = Portfolio(
    metric="balanced",
    folds=0,
    seed=0,
    images=0,
    epochs=0,
    batch_size=0,
    candidates=(),
    first_round=(),
    chosen=-1,
    seconds=0.0,
)
"""Where nothing can be held out, or choosing would take too long."""


def _checked(portfolio: Portfolio) -> Portfolio:
    """Return a portfolio that was read, whose parts fit together."""
    finalists = len(portfolio.finalists)
    if not portfolio.candidates and portfolio.chosen == -1:
        return portfolio
    if not 0 <= portfolio.chosen < finalists or portfolio.candidates[:finalists] != portfolio.finalists:
        raise ValueError("the choice is not one of the candidates that were tried on all folds")
    if len(portfolio.first_round) != finalists or not all(each.adjustments for each in portfolio.finalists):
        raise ValueError("the first round or the adjustments of a candidate are missing")
    return portfolio


def write_portfolio(run: Path, portfolio: Portfolio) -> None:
    """Write ``portfolio.json`` into a RUN folder."""
    write_json(run / PORTFOLIO_FILE, asdict(portfolio))


def read_portfolio(run: Path) -> Portfolio | None:
    """Read ``portfolio.json``; None for a run whose classifier was not chosen from a portfolio.

    Raises:
        LongtailError: It is damaged, or of a newer format.
    """
    path = run / PORTFOLIO_FILE
    if not path.is_file():
        return None
    remedy = "move it away to go on without it"
    adapter = TypeAdapter(Annotated[Portfolio, AfterValidator(_checked)])
    return read_json(path, adapter, remedy, PORTFOLIO_FORMAT)


def describe_portfolio(portfolio: Portfolio, shown: int = 5, option: str = "--metric") -> list[str]:
    """Describe a choice in a few lines: what was compared, the best candidates, and the other end of the trade.

    Args:
        portfolio: The candidates and the choice.
        shown: Number of candidates that have a line.
        option: What the user sets to compare by another metric.
    """
    rank = "as good as the best" if portfolio.choice.behind else "the best"
    lines = [
        f"classifier: {portfolio.choice.title}, {rank} of {len(portfolio.candidates)} by "
        f"{METRIC_WORDS[portfolio.metric]} in {portfolio.procedure} on {portfolio.images:,} training "
        f"images, {portfolio.seconds:.0f} s"
    ]
    asked = portfolio.other_metric
    first = sorted({portfolio.chosen, *range(min(shown, len(portfolio.finalists)))})
    names = Counter(portfolio.candidates[number].name for number in first)
    for number in first:
        each = portfolio.candidates[number]
        title = f"{each.title}, lr {each.lr:.2g}" if names[each.name] > 1 else each.title
        groups = ", ".join(f"{name} {100 * value:.0f}" for name, value in each.groups.items())
        mark = "*" if number == portfolio.chosen else " "
        score = figure_text(each.score, each.interval)
        traded = figure_text(each.balanced_accuracy if asked == "balanced" else each.accuracy)
        lines.append(f" {mark} {title}: {score}, {METRIC_WORDS[asked]} {traded} ({groups}), {each.seconds:.1f} s")
    if other := portfolio.other_end:
        lines.append(
            f"the highest {METRIC_WORDS[asked]} of the {len(portfolio.finalists)} tried on all folds "
            f"({option} {asked}): {other.title}, accuracy {figure_text(other.accuracy)}, balanced accuracy "
            f"{figure_text(other.balanced_accuracy)}"
        )
    return lines


METRIC_WORDS: Final[dict[Metric, str]] = {
    "balanced": "balanced accuracy",
    "accuracy": "accuracy",
    "macro-f1": "macro F1",
    "worst-group": "the accuracy of the worst shot group",
}
"""What each metric is called in a sentence."""
