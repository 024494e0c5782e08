"""``RUN/search.json``: the networks, sizes and fits that were compared before a run, and what more time would buy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from longtail.config.options import Fit, Metric
from longtail.config.schema import RunConfig
from longtail.files import write_json
from longtail.run.layout import SEARCH_FILE
from longtail.run.portfolio import Portfolio
from longtail.validation import read_json

SEARCH_FORMAT: Final = 1
NO_MORE: Final = "More time would buy nothing: everything was given the time it takes."


@dataclass(frozen=True)
class Presentation:
    """How a network is shown an image.

    Attributes:
        network: Its name.
        size: Side of its input in pixels.
        fit: How an image becomes square.
    """

    network: str
    size: int
    fit: Fit

    def __str__(self) -> str:
        """Name all three, the fit only where it is not the usual one."""
        return f"{self.network} at {self.size} px{'' if self.fit == 'crop' else f', {self.fit}'}"


@dataclass(frozen=True)
class PresentationResult:
    """A presentation that was considered, and its figures in cross-validation on a sample of the training images.

    Attributes:
        presentation: Network, size and fit.
        minutes: Estimated minutes of a run that takes it.
        score: The metric of the choice, in [0, 1]; None where it was not tried, for lack of time.
        interval: 95% interval of the score, [low, high].
        behind: Difference from the best score on the same images, at least 0.
        behind_error: Standard error of that difference.
    """

    presentation: Presentation
    minutes: float
    score: float | None = None
    interval: tuple[float, float] | None = None
    behind: float | None = None
    behind_error: float | None = None


@dataclass(frozen=True)
class WholeNetworkResult:
    """Training of a whole network, tried on a part of the training images and judged on the rest.

    Attributes:
        presentation: Network, size and fit.
        images: Images that were held out.
        epochs: Passes of the trial over its images.
        images_per_second: Speed of the training.
        score: The metric of the choice on the images held out, in [0, 1].
        frozen_score: The same of the classifier on the frozen network, trained on the same images.
        gain: Difference of the two.
        gain_error: Its standard error.
        tau: Strength of the logit adjustment after training.
        taken: Whether the run trains this network.
    """

    presentation: Presentation
    images: int
    epochs: float
    images_per_second: float
    score: float
    frozen_score: float
    gain: float
    gain_error: float
    tau: float
    taken: bool


@dataclass(frozen=True)
class Search:
    """What was compared before a run.

    Attributes:
        metric: What was compared.
        images: Training images of the sample.
        time_limit: Seconds that the command may take; None without a limit.
        presentations: What was considered, in the order in which it was tried; empty where a time limit decided alone.
        chosen: Position of the choice among them; -1 if there are none.
        seconds: Time that the search took.
        trials: Those of training a whole network.
        more_time: What more time would buy, in a sentence or two. Empty without a limit.
        asked: The sections of the configuration that the search may change, as they were before; of ``data``
            and ``training``, only the options that it may change.
        format_version: The layout of the file.
    """

    metric: Metric
    images: int
    time_limit: float | None
    presentations: tuple[PresentationResult, ...]
    chosen: int
    seconds: float
    trials: tuple[WholeNetworkResult, ...] = ()
    more_time: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    format_version: int = field(default=SEARCH_FORMAT)

    @property
    def choice(self) -> PresentationResult:
        """The presentation that was chosen."""
        return self.presentations[self.chosen]

    @property
    def tried(self) -> tuple[PresentationResult, ...]:
        """The presentations that have a score."""
        return tuple(each for each in self.presentations if each.score is not None)


def nothing_compared(config: RunConfig) -> Search:
    """Return the record of a run for which nothing was compared, with the options as they are now."""
    training = config.training
    return Search(training.metric, 0, training.time_limit, (), -1, 0.0, asked=left_open(config))


def write_search(run: Path, search: Search) -> None:
    """Write ``search.json`` into a RUN folder."""
    write_json(run / SEARCH_FILE, asdict(search))


def read_search(run: Path) -> Search | None:
    """Read ``search.json``; None for a run before which nothing was compared.

    Raises:
        LongtailError: It is damaged, or of a newer format.
    """
    path = run / SEARCH_FILE
    if not path.is_file():
        return None
    return read_json(path, TypeAdapter(Search), "move it away to go on without it", SEARCH_FORMAT)


def left_open(config: RunConfig) -> dict[str, Any]:
    """Return the options that a search may change, as nested values.

    Example:
        >>> sorted(left_open(RunConfig()))
        ['data', 'finetune', 'mode', 'model', 'recipe', 'search', 'stage1', 'stage2', 'training']
    """
    options = asdict(config)
    of_data = ("image_size", "resize", "fit", "mean", "std", "interpolation", "augmentation")
    return {name: options[name] for name in ("recipe", "mode", "model", "stage1", "stage2", "finetune", "search")} | {
        "data": {name: options["data"][name] for name in of_data},
        "training": {"time_limit": options["training"]["time_limit"]},
    }


def as_asked(options: Mapping[str, Any], portfolio: Portfolio | None, search: Search | None) -> dict[str, Any]:
    """Return the options of a run as they were before anything was chosen.

    Args:
        options: Sections of the configuration, as nested values.
        portfolio: The classifiers that were tried, if any.
        search: What was compared, if anything.

    Example:
        >>> as_asked({"data": {"fit": "pad"}}, None, None)
        {'data': {'fit': 'pad'}}
    """
    asked = search.asked if search is not None else {} if portfolio is None else portfolio.asked
    in_part = {
        name: {**options.get(name, {}), **asked.get(name, {})} for name in ("data", "training") if name in options
    }
    return {**options, **asked, **in_part}


def describe_search(search: Search) -> str:
    """Say what was chosen."""
    chosen = f"images: {search.choice.presentation}"
    if len(search.tried) > 1:
        best = search.choice.behind == 0
        chosen += f", {'the best' if best else 'the fastest of those as good as the best'} of {len(search.tried)}"
    return chosen
