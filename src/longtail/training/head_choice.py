"""The choice of a run's classifier: from the portfolio where there are images and time for it, else the usual one."""

from __future__ import annotations

from dataclasses import replace

from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.models.model import LongTailModel
from longtail.run.portfolio import METRIC_WORDS, NOTHING_TRIED, Portfolio, describe_portfolio
from longtail.run.search import Presentation
from longtail.training.candidates import classifier_of, with_classifier
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
    images, head, metric = contest.training_images, config.model.head, config.training.metric
    within = contest.seconds_left_to_choose(Presentation(config.model.name, config.data.image_size, config.data.fit))
    why = contest.hindrance(model.num_features, within)
    portfolio = replace(NOTHING_TRIED, metric=metric) if why else _try_all(contest, config, stored, within)
    candidate = classifier_of(portfolio, model.num_features, images, head)
    tau = portfolio.choice.tau if portfolio.candidates else 0.0
    config = with_classifier(config, candidate, tau)
    if why:
        reason = f"{candidate.plan.loss} for {METRIC_WORDS[metric]}, as {why}"
        contest.reporter.say(f"classifier: {reason}")
        config = config.with_reasons({"recipe": (config.recipe, reason)})
    return complete(config), portfolio


def _try_all(contest: Contest, config: RunConfig, stored: StoredFeatures, within: float) -> Portfolio:
    """Try the portfolio on the features of the training images, and say what was found."""
    stage, head, reporter = config.stage1, config.model.head, contest.reporter
    steps = steps_to_choose(contest.training_images, stage.epochs, stage.batch_size, head)
    with reporter.bar("choosing a classifier", steps) as bar:

        def step() -> None:
            bar.tick()
            contest.stop()

        portfolio = contest.engine.from_main(
            lambda: choose_classifier(
                contest.samples(stored),
                epochs=stage.epochs,
                batch_size=stage.batch_size,
                head=head,
                within=within,
                tick=step,
            )
        )
    for line in describe_portfolio(portfolio):
        reporter.say(line)
    return portfolio
