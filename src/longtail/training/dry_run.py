"""The plan of a run that is not made: what would be compared, and how long it would take."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.models.candidate_networks import accepted_size
from longtail.run.search import Presentation
from longtail.training.candidates import FALLBACK, candidates
from longtail.training.engine import Engine
from longtail.training.finetuning import measure_training_rate
from longtail.training.prepared_data import describe_data, prepare_data
from longtail.training.presentation import Contest
from longtail.training.setup import make_network
from longtail.training.time_estimate import MARGIN, RESERVE, TimeLimit, duration_text


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
    lines, seconds, comparing = list[str](), 0.0, 0.0
    if config.is_on_features_through(min(config.stages)):
        contest.require_time()
        lines.append("network and images:")
        for presentation in _considered(contest):
            setup = contest.set_up(presentation)
            needed = contest.seconds_of_run(presentation, setup)
            late = "" if needed <= contest.limit.left else ": no time for it"
            lines.append(f"  {presentation}: about {duration_text(needed)} in all{late}")
            seconds = max(seconds, needed)
            comparing += len(contest.sample) * contest.seconds_per_image(presentation, setup)
        seconds += comparing if contest.several else 0.0
        lines += _classifiers(contest, setup.model.num_features)
    through = [stage for stage in config.stages.values() if not stage.cached_views]
    if through:
        model, batch = make_network(config, prepared.counts, reporter).to(engine.device), through[0].batch_size
        rate = measure_training_rate(model, config.data.image_size, batch, stage=through[0])
        passes = sum(stage.epochs * stage.epoch_share for stage in through)
        images = len(prepared.data.splits["train"])
        lines.append(f"training through the network: {rate:.3g} images/s, {passes:g} passes over {images:,} images")
        seconds += RESERVE + MARGIN * passes * images / rate
    if config.search.finetuning:
        lines.append("the whole network: tried if the limit leaves time for an epoch, taken if it wins")
    if config.search.from_nothing:
        lines.append(f"{config.search.from_nothing} from nothing: tried in the same way, as the images are tiny")
    folds = config.data.folds if config.data.is_cross_validation else 1
    expected = f"about {duration_text(folds * seconds)}" if limit is None else f"at most {duration_text(limit)}"
    return [*lines, f"expected: {expected}{f' for {folds} folds' if folds > 1 else ''}"]


def _considered(contest: Contest) -> list[Presentation]:
    """Return what is compared: sizes first; other fits and networks at the best of them, here at the largest."""
    sizes = [replace(contest.first, size=size) for size in contest.sizes]
    fits = [replace(sizes[-1], fit=fit) for fit in contest.fits[1:]]
    others = [
        replace(sizes[-1], network=network, size=accepted_size(network, sizes[-1].size))
        for network in contest.networks[1:]
    ]
    return sizes + fits + others


def _classifiers(contest: Contest, num_features: int) -> list[str]:
    """List the classifiers that are compared, with the time that takes; empty where one was named."""
    if not contest.config.is_to_be_chosen:
        return []
    if not contest.has_time_to_choose:
        return [f"classifier: {FALLBACK}, as there is no time to choose one"]
    tried = candidates(num_features, contest.prepared.counts.total)
    named = [(name, len(list(group))) for name, group in groupby(each.name for each in tried)]
    total, duration = sum(count for _, count in named), duration_text(contest.seconds_to_choose(num_features))
    return [
        f"classifiers: {total}, compared for about {duration}",
        *(f"  {name}, {count} strengths of regularization" for name, count in named),
    ]
