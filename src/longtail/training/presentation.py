"""The choice of network, image size and fit, on a sample of the training images and within the time there is."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from longtail.config.schema import RunConfig
from longtail.formatting import duration_text
from longtail.models.candidate_networks import accepted_size
from longtail.run.portfolio import METRIC_WORDS
from longtail.run.search import Presentation, Search
from longtail.training.contest import Contest, with_presentation
from longtail.training.portfolio import LONGEST_CHOICE
from longtail.training.time_estimate import SHORTEST


def choose_presentation(contest: Contest) -> tuple[RunConfig, Search | None]:
    """Choose network, image size and fit as far as they are open, and return the configuration with that choice.

    Sizes are tried from small to large, then the other fits, then the other networks, each at the best so far; what the
    time does not allow is left out. Every presentation is judged on the same images by the same folds. Among those as
    good as the best, the fastest is taken.

    Args:
        contest: What is compared.

    Returns:
        The configuration, in which nothing of this kind is open, and what was compared; None where nothing was.
    """
    begun = time.perf_counter()
    first = contest.first
    if not (contest.several or contest.config.search.finetuning) or not contest.can_compare:
        if contest.several and contest.engine.world_size > 1:
            contest.reporter.say(
                "note: several processes compare no networks, sizes and fits: the first ones are taken"
            )
        elif contest.several and contest.is_too_long:
            contest.reporter.say(
                f"note: comparing networks, sizes and fits would take more than {duration_text(LONGEST_CHOICE)}: the "
                "first ones are taken; add --time-limit to say how long it may take"
            )
        return _without_comparison(contest), None
    if contest.limit.seconds is None:  # else the limit says it
        planned = plan_comparison(contest)
        seconds = longest_seconds(contest, planned)
        if seconds >= SHORTEST:
            text = f"this takes at most about {duration_text(seconds)}"
            contest.reporter.say(f"{text}: first, {len(planned)} ways to show the images to a network are compared")
    for size in contest.sizes:
        if not contest.attempt(replace(first, size=size)):
            break
    if not contest.judged:
        return _without_comparison(contest), None
    for fit in contest.fits[1:]:
        contest.attempt(replace(contest.best(), fit=fit))
    for network in contest.networks[1:]:
        best = contest.best()
        other = replace(best, network=network, size=accepted_size(network, best.size))
        contest.attempt(other, within=contest.for_another_network)
    chosen, considered = contest.best(), list(contest.results)
    search = Search(
        metric=contest.config.training.metric,
        images=len(contest.sample),
        time_limit=contest.limit.seconds,
        presentations=tuple(contest.results.values()),
        chosen=considered.index(chosen),
        seconds=round(time.perf_counter() - begun, 1),
        more_time=_what_more_time_buys(contest, chosen),
    )
    return _with_reasons(with_presentation(contest.config, chosen), search), search


def plan_comparison(contest: Contest) -> dict[Presentation, bool]:
    """Return what is compared, in order, and whether there is time for each.

    Other fits and networks are compared at the best of the sizes, which is not known before: here at the largest for
    which there is time. If nothing can be compared, it is the one presentation that a run takes.
    """
    if not (contest.several and contest.can_compare):
        return {largest_in_time(contest): True}
    planned, spent, largest = dict[Presentation, bool](), 0.0, contest.first

    def plan(presentation: Presentation, within: float = math.inf) -> float:
        """Add a presentation; return the seconds that judging it takes."""
        planned[presentation] = contest.has_time_for(presentation, within, before=spent)
        return contest.seconds_for_sample(presentation) if planned[presentation] else 0.0

    for size in contest.sizes:
        shown = replace(contest.first, size=size)
        spent += plan(shown)
        largest = shown if planned[shown] else largest
    for fit in contest.fits[1:]:
        spent += plan(replace(largest, fit=fit))
    for network in contest.networks[1:]:
        other = replace(largest, network=network, size=accepted_size(network, largest.size))
        spent += plan(other, contest.for_another_network)
    return planned


def longest_seconds(contest: Contest, planned: dict[Presentation, bool]) -> float:
    """Return the seconds of a comparison, and of a run with the slowest presentation that may win it.

    Args:
        contest: What is compared.
        planned: What :func:`plan_comparison` returns.
    """
    compared = [each for each, is_in_time in planned.items() if is_in_time]
    comparing = sum(map(contest.seconds_for_sample, compared)) if len(compared) > 1 else 0.0
    return comparing + max(map(contest.seconds_of_run, planned))


def largest_in_time(contest: Contest) -> Presentation:
    """Return the first network and fit at the largest size for which there is time, where none can be compared."""
    shown = [replace(contest.first, size=size) for size in reversed(contest.sizes)]
    if contest.limit.seconds is None:
        return shown[0]
    fitting = (each for each in shown if contest.seconds_of_run(each) <= contest.limit.left)
    return next(fitting, shown[-1])


def _what_more_time_buys(contest: Contest, chosen: Presentation) -> str:
    """Say what the next larger size would take, and what the last step up brought; empty if none was left out."""
    left_out = [each for each, result in contest.results.items() if result.score is None]
    if not left_out:
        return ""
    following, limit = contest.results[left_out[0]], contest.limit.seconds or 0.0
    sizes = [each for each in contest.judged if (each.network, each.fit) == (chosen.network, contest.fits[0])]
    metric = METRIC_WORDS[contest.config.training.metric]
    kept = 2 if contest.kept_for_finetuning else 1  # half of the time is not for the frozen network
    # One that was left out as its sample takes long might itself fit: a longer limit has a larger share for samples.
    minutes = max(math.ceil(kept * following.minutes), math.floor(limit / 60) + 1)
    text = f"More time would buy {left_out[0]}, from about {minutes} minutes on"
    if len(sizes) < 2:
        return f"{text}."
    before, last = (contest.judged[each] for each in sizes[-2:])
    drawn = last.replicates[last.metric] - before.replicates[last.metric]
    gain, error = last.score - before.score, float(np.std(drawn))
    return (
        f"{text}; the step from {sizes[-2].size} to {sizes[-1].size} px changed {metric} by "
        f"{100 * gain:+.1f} ± {100 * error:.1f} points."
    )


def _without_comparison(contest: Contest) -> RunConfig:
    """Return the configuration with a presentation that was compared with no other."""
    shown = largest_in_time(contest)
    config = with_presentation(contest.config, shown)
    if shown.size == contest.sizes[-1]:
        return config
    return config.with_reasons({"data.image_size": (shown.size, "the largest that there is time for")})


def _with_reasons(config: RunConfig, search: Search) -> RunConfig:
    """Return a configuration whose reasons say what was compared."""
    choice, tried = search.choice.presentation, [each.presentation for each in search.tried]
    word = "the best" if search.choice.behind == 0 else "the fastest of those as good as the best"
    compared = f"{word} of {len(tried)} that were compared on {search.images:,} training images"
    told: dict[str, tuple[str | int, str]] = {}
    if len({each.network for each in tried}) > 1:
        told["model.name"] = choice.network, compared
    if len({(each.size, each.fit) for each in tried}) > 1:
        told["data.image_size"] = choice.size, compared
    return config.with_reasons(told)
