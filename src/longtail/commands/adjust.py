"""longtail adjust: logit adjustment, tau-normalization, temperature and "not sure", chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table

from longtail.commands.arguments import given_words
from longtail.commands.output import IN_BRACKETS, interval_notes, plain_table, print_json, print_line, selective_table
from longtail.config.options import EngineName, NotNegative, Positive, Share
from longtail.device import is_main_of_run
from longtail.errors import UsageError
from longtail.formatting import figure_text, signed


def adjust(
    run: Annotated[str, "RUN"],
    *,
    method: Literal["logit-adjustment", "tau-norm", "none"] = "logit-adjustment",
    tau: Annotated[NotNegative | Literal["auto"], "auto|X"] = "auto",
    temperature: Annotated[Positive | Literal["auto", "none"], "auto|X|none"] = "auto",
    metric: Literal["balanced_accuracy", "accuracy", "harmonic_mean"] = "balanced_accuracy",
    threshold_coverage: Share | None = None,
    threshold_accuracy: Share | None = None,
    moved_to: Annotated[str, "SOURCE"] | None = None,
    engine: EngineName | None = None,
    reset: bool = False,
    json: bool = False,
) -> None:
    """Adjust a RUN after training, by its validation images.

    Args:
        run: RUN folder; its ``model.json`` stores the adjustment
        method: adjustment besides the temperature
        tau: strength of the adjustment, a number or auto
        temperature: divisor of the logits, a number, auto or none
        metric: figure that the strength is chosen by
        threshold_coverage: share of the images to be sure of
        threshold_accuracy: or accuracy on those images
        moved_to: new SOURCE of the RUN, if its images have moved
        engine: what runs the network on a CPU; that of the RUN when not given
        reset: remove adjustment and threshold
        json: print everything as JSON
    """
    given = given_words(adjust, locals())
    from longtail.console import Reporter
    from longtail.experiments.adjust import AdjustmentOptions, adjust_run, reset_run

    if reset:
        if others := [words for name, words in given.items() if name not in {"run", "reset", "json"}]:
            raise UsageError(f"--reset removes the adjustment: leave {' and '.join(others)} out.")
        was_adjusted = reset_run(Path(run))
        if json:
            print_json({"removed": was_adjusted})
        else:
            print_line(f"{run}: {'adjustment removed' if was_adjusted else 'there was no adjustment'}")
        return
    options = AdjustmentOptions(
        method=method,
        metric=metric,
        tau=None if tau == "auto" else tau,
        temperature=None if temperature == "auto" else 1.0 if temperature == "none" else temperature,
        coverage=threshold_coverage,
        accuracy=threshold_accuracy,
    )
    result = adjust_run(Path(run), options, moved_to=moved_to, engine=engine, reporter=Reporter())
    if not is_main_of_run():
        return
    if json:
        print_json(result)
        return
    for line in _sentences(run, result):
        print_line(line)
    for name in ("validation", "test"):
        if result[name]:
            _print_split(name, result[name])


def _sentences(run: str, result: dict[str, Any]) -> list[str]:
    from longtail.counts import FEW_IMAGES

    chosen = result["chosen"]
    tau = f"tau {chosen['tau']:g} ({_source(chosen, 'tau', chosen['metric'].replace('_', ' '))}), "
    temperature = f"temperature {chosen['temperature']:.4g} ({_source(chosen, 'temperature', 'likelihood')})"
    lines = [
        f"{run}: {chosen['method'] + ', ' + tau if chosen['method'] != 'none' else ''}{temperature}",
        f"its probabilities now assume {result['assumes']}",
    ]
    few = chosen["classes_with_few_validation_images"]
    if few:
        lines.append(
            f"note: {few} of the classes have fewer than {FEW_IMAGES} of the {chosen['validation_images']} validation "
            "images: the choice knows little of them."
        )
    if result["threshold"] is not None:
        lines.append(f"sure from a confidence of {result['threshold']:.4f} on (chosen on validation)")
    return lines


def _source(chosen: Mapping[str, Any], name: str, by: str) -> str:
    source = str(chosen[f"{name}_from"])
    return f"chosen on validation by {by}" if source == "validation" else source


def _print_split(name: str, figures: Mapping[str, Any]) -> None:
    """Print the figures of a split before and after, and its coverage at the threshold."""
    print_line(f"\n{name}, {sum(figures['images'])} images; {IN_BRACKETS}", style="italic")
    # The adjustment was chosen on the validation images, so they cannot judge it.
    Console().print(_table(figures["before"], figures["after"], figures["change"], judge=name == "test"))
    if name == "test":
        print_line("* marks evidence: half a point or more, and a 95% interval over the test images that excludes zero")
    if figures["sure"] is not None:
        Console().print(selective_table(figures["sure"]))
    # How few validation images there are is said above, as it bears on the choice.
    classes = [{"test_count": images} for images in figures["images"]] if name == "test" else []
    for note in interval_notes({"intervals": figures["after"]["intervals"], "per_class": classes}):
        print_line(f"note: {note}")


def _table(before: Mapping[str, Any], after: Mapping[str, Any], change: Mapping[str, Any], *, judge: bool) -> Table:
    table = plain_table("figure", "before", "after", "difference")
    table.collapse_padding = True
    for key in (key for key in before if key != "intervals"):
        shown = [
            f"{each[key]:.4f}" if key == "nll" else figure_text(each[key], each["intervals"].get(key))
            for each in (before, after)
        ]
        table.add_row(key.replace("_", " "), *shown, _difference(change.get(key), judge=judge))
    return table


def _difference(change: Mapping[str, Any] | None, *, judge: bool) -> str:
    """The difference in points with its interval on the same images; empty for a figure without one."""
    if change is None:
        return ""
    low, high = (signed(end) for end in change["interval"])
    return f"{signed(change['mean'])} ({low} to {high}){'*' if judge and change['is_evidence'] else ''}"
