"""The choice of a run's classifier: from the portfolio where there are images and time for it, else the usual one."""

from __future__ import annotations

from dataclasses import replace

from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.models.model import LongTailModel
from longtail.run.portfolio import METRIC_WORDS, NOTHING_TRIED, Portfolio, describe_portfolio
from longtail.run.search import Presentation
from longtail.training.candidates import with_choice, with_fallback
from longtail.training.contest import Contest
from longtail.training.frozen_features import StoredFeatures
from longtail.training.portfolio import choose_classifier, steps_to_choose


def choose_head(
    contest: Contest, config: RunConfig, stored: StoredFeatures, model: LongTailModel
) -> tuple[RunConfig, Portfolio]:
    """Choose the classifier of a run, and say so.

    Args:
        contest: The data of the run, and the time that is left.
        config: The configuration that leaves the classifier open.
        stored: Features of the training images.
        model: The network.

    Returns:
        The configuration that trains the choice, and what was tried.
    """
    prepared, reporter = contest.prepared, contest.reporter
    labels, seed = prepared.data.splits["train"].labels, config.training.seed
    within = contest.seconds_left_to_choose(Presentation(config.model.name, config.data.image_size, config.data.fit))
    why = contest.hindrance(model.num_features, within)
    if why:
        changed = complete(with_fallback(config, model.num_features, len(labels), why))
        metric = config.training.metric
        reporter.say(f"classifier: {changed.stage1.loss.name} for {METRIC_WORDS[metric]}, as {why}")
        return changed, replace(NOTHING_TRIED, metric=metric)
    stage = config.stage1
    steps = steps_to_choose(len(labels), stage.epochs, stage.batch_size, config.model.head)
    with reporter.bar("choosing a classifier", steps) as bar:

        def step() -> None:
            bar.tick()
            contest.stop()

        portfolio = contest.engine.from_main(
            lambda: choose_classifier(
                stored.features[0].cpu(),
                stored.labels.cpu(),
                prepared.counts,
                prepared.groups,
                epochs=stage.epochs,
                batch_size=stage.batch_size,
                head=config.model.head,
                metric=config.training.metric,
                units=contest.units,
                seed=seed,
                within=within,
                tick=step,
            )
        )
    for line in describe_portfolio(portfolio):
        reporter.say(line)
    return complete(with_choice(config, portfolio)), portfolio
