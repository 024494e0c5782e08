"""The plan of a run that is not made: what would be compared, and how long it would take."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.formatting import duration_text
from longtail.run.portfolio import METRIC_WORDS
from longtail.training.candidates import candidates, usual_candidate
from longtail.training.contest import Contest
from longtail.training.engine import Engine
from longtail.training.finetuning import MOST_FINETUNING, TRIAL_SHARE, measure_training_rate
from longtail.training.network_trials import (
    FEWEST_EPOCHS,
    FEWEST_FROM_NOTHING,
    MOST_FROM_NOTHING,
    plan_from_nothing,
)
from longtail.training.prepared_data import describe_data, prepare_data
from longtail.training.presentation import longest_seconds, plan_comparison
from longtail.training.setup import make_network
from longtail.training.time_estimate import MARGIN, RESERVE, TimeLimit, training_passes


def describe_plan(config: RunConfig, reporter: Reporter, source: ImageData | None = None) -> list[str]:
    """Describe what a run would compare and how long it would take, by the measured time of some images.

    Args:
        config: Of the run.
        reporter: Messages on the data.
        source: The source of the images, where it has been read already.
    """
    fold = 0 if config.data.is_cross_validation else config.data.fold
    prepared = prepare_data(replace(config.data, fold=fold), reporter, source=source)
    describe_data(prepared, config.data.source, reporter)
    engine, limit = Engine(config.training), config.training.time_limit
    contest = Contest(config, prepared, engine, reporter, {"features": 0.0}, TimeLimit(limit))
    lines, seconds, frozen = list[str](), 0.0, config.is_on_features_through(min(config.stages))
    if frozen:
        contest.require_time()
        planned = plan_comparison(contest)
        lines.append("network and images:")
        for presentation, is_in_time in planned.items():
            late = "" if is_in_time else ": no time to compare it"
            lines.append(f"  {presentation}: about {duration_text(contest.seconds_of_run(presentation))} in all{late}")
        seconds = longest_seconds(contest, planned)
        lines += _classifiers(contest, contest.set_up(contest.first).model.num_features)
    through = [stage for stage in config.stages.values() if not stage.cached_views]
    if through:
        model, batch = make_network(config, prepared.counts, reporter).to(engine.device), through[0].batch_size
        rate = measure_training_rate(model, config.data.image_size, batch, engine, stage=through[0])
        passes = training_passes(config)
        images = len(prepared.data.splits["train"])
        lines.append(f"training through the network: {rate:.3g} images/s, {passes:.4g} passes over {images:,} images")
        seconds += 0.0 if frozen else RESERVE + MARGIN * passes * images / rate
    lines += _whole_networks(contest)
    folds = config.data.folds if config.data.is_cross_validation else 1
    expected = f"about {duration_text(folds * seconds)}" if limit is None else f"at most {duration_text(limit)}"
    return [*lines, f"expected: {expected}{f' for {folds} folds' if folds > 1 else ''}"]


def _classifiers(contest: Contest, num_features: int) -> list[str]:
    """List the classifiers that are compared, with the time that takes; empty where one was named."""
    if not contest.config.is_to_be_chosen:
        return []
    images, head = contest.prepared.counts.total, contest.config.model.head
    if contest.expected_hindrance:
        metric = contest.config.training.metric
        loss = usual_candidate(num_features, images, head, metric).plan.loss
        return [f"classifier: {loss} for {METRIC_WORDS[metric]}, as {contest.expected_hindrance}"]
    tried = candidates(num_features, images, head)
    named = [(name, len(list(group))) for name, group in groupby(each.name for each in tried)]
    duration = duration_text(contest.seconds_to_choose(num_features))
    return [
        f"classifiers: {len(tried)}, compared for about {duration}",
        *(f"  {name}, {count} strengths of regularization" for name, count in named),
    ]


def _whole_networks(contest: Contest) -> list[str]:
    """Say how long whole networks would be trained in the time that is left, by measured rates; empty if none are."""
    search, images = contest.config.search, contest.training_images
    if not (search.finetuning and contest.can_compare):
        return []
    frozen = contest.seconds_for_sample(contest.first) + contest.seconds_of_run(contest.first)
    left = contest.kept_for_finetuning or contest.limit.left - frozen
    rates = {f"the whole network at {contest.first.size} px": (contest.training_rate(contest.first), FEWEST_EPOCHS)}
    if search.from_nothing:
        plan = plan_from_nothing(contest, contest.config)
        rates[f"{plan.presentation} from nothing"] = (plan.rate, FEWEST_FROM_NOTHING)
    lines = []
    for title, (rate, fewest) in rates.items():
        most = MOST_FINETUNING if fewest == FEWEST_EPOCHS else MOST_FROM_NOTHING
        epochs = min((1 - TRIAL_SHARE) * left * rate / images, most)
        length = f"about {epochs:.2g} epochs after a trial, taken if it wins"
        lines.append(f"{title}, {rate:.3g} images/s: {length if epochs >= fewest else 'no time for it'}")
    return lines
