"""The plan of a run that is not made: what would be compared, and how long it would take."""

from __future__ import annotations

from itertools import groupby, product

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.run.search import Presentation
from longtail.training.candidates import candidates
from longtail.training.engine import Engine
from longtail.training.prepared_data import describe_data, prepare_data
from longtail.training.presentation import Contest
from longtail.training.time_estimate import TimeLimit, duration_text


def describe_plan(config: RunConfig, reporter: Reporter, source: ImageData | None = None) -> list[str]:
    """Describe what a run would compare and how long it would take, by the measured time of some images.

    Args:
        config: Of the run.
        reporter: Messages on the data.
        source: The source of the images, where it has been read already.
    """
    prepared = prepare_data(config.data, reporter, source=source)
    describe_data(prepared, config.data.source, reporter)
    contest = Contest(config, prepared, Engine(config.training), reporter, {"features": 0.0}, TimeLimit())
    lines, seconds, features = ["network and images:"], 0.0, 0
    for network, size, fit in product(contest.networks, contest.sizes, contest.fits):
        presentation = Presentation(network, size, fit)
        setup = contest.set_up(presentation)
        seconds, features = contest.seconds_of_run(presentation, setup), setup.model.num_features
        lines.append(f"  {presentation}: about {duration_text(seconds)} in all")
    if config.is_to_be_chosen:
        named = [(name, len(list(group))) for name, group in groupby(each.name for each in candidates(features))]
        lines.append(
            f"classifiers: {sum(count for _, count in named)}, compared for about "
            f"{duration_text(contest.seconds_to_choose(features))}"
        )
        lines += [f"  {name}, {count} strengths of regularization" for name, count in named]
    limit = config.training.time_limit
    lines.append(
        f"expected: about {duration_text(seconds)}" if limit is None else f"expected: at most {duration_text(limit)}"
    )
    return lines
