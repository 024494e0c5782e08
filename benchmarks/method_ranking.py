"""Say which method wins where on frozen features, from the rows of ``portfolio.py --every``: a table and a picture.

python benchmarks/method_ranking.py --sets fish stamps cifar100-lt --out docs/images/methods-frozen.png

Of the variants of a method (its learning rates) the one counts that is best in cross-validation on the training images,
seed by seed; the test images choose nothing. Figures are points of balanced accuracy above balanced logistic regression
on the same features and test images, mean over the seeds; the interval is 1.96 standard errors of that difference, from
the test images and the seeds together.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from plotly.subplots import make_subplots

from longtail.report.plots import INK, MUTED, RULE, THEME, blank

ZERO, COLOR = {"color": MUTED, "width": 1, "dash": "dot"}, THEME["many"][0]
Ranking = dict[str, dict[str, tuple[float, float]]]
"""Of each set and method: points above logistic regression, and half of the interval."""


def main() -> int:
    """Print the table, and draw the picture."""
    flags = _flags()
    ranking = read_ranking(flags.csv)
    ranking = {name: ranking[name] for name in flags.sets or ranking}
    print("\n".join(table(ranking)))
    if flags.out:
        draw(ranking, flags.out)
    return 0


def read_ranking(file: Path) -> Ranking:
    """Read how far each method is above logistic regression on each set."""
    variants: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            method, _, _ = row["classifier"].rpartition(", rate ")
            variants[row["set"], method, row["seed"]].append(row)
    seeds: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for (name, method, _), rows in variants.items():
        best = max(rows, key=lambda row: (int(row["folds"]), float(row["cross_validated"])))
        seeds[name, method].append(best)
    ranking: Ranking = defaultdict(dict)
    for (name, method), rows in seeds.items():
        gains, errors = (100 * np.array([float(row[key]) for row in rows]) for key in ("above", "above_error"))
        spread = gains.var(ddof=1) / len(gains) if len(gains) > 1 else 0.0
        ranking[name][method] = float(gains.mean()), 1.96 * float(np.sqrt((errors**2).mean() + spread))
    return ranking


def ordered(ranking: Ranking) -> list[str]:
    """Return the methods, the best on average first."""
    methods = next(iter(ranking.values()))
    return sorted(methods, key=lambda method: -np.mean([figures[method][0] for figures in ranking.values()]))


def table(ranking: Ranking) -> Iterator[str]:
    """Yield the lines of a Markdown table; the best of each set is bold."""
    yield f"| method | {' | '.join(ranking)} | mean |"
    yield "|---" * (len(ranking) + 2) + "|"
    best = {name: max(figures.values())[0] for name, figures in ranking.items()}
    for method in ordered(ranking):
        cells = []
        for name, figures in ranking.items():
            gain, half = figures[method]
            text = f"{gain:+.1f}".replace("-", "−")
            cells.append(f"{f'**{text}**' if gain == best[name] else text} ± {half:.1f}")
        mean = float(np.mean([figures[method][0] for figures in ranking.values()]))
        yield f"| {method} | {' | '.join(cells)} | {f'{mean:+.1f}'.replace('-', '−')} |"


def draw(ranking: Ranking, out: Path) -> None:
    """Draw a panel for each set, the methods below each other."""
    methods = ordered(ranking)[::-1]
    figure = make_subplots(
        rows=1, cols=len(ranking), shared_yaxes=True, horizontal_spacing=0.02, subplot_titles=list(ranking)
    )
    for column, figures in enumerate(ranking.values(), 1):
        gains, halves = zip(*(figures[method] for method in methods), strict=True)
        figure.add_scatter(
            x=gains,
            y=methods,
            error_x={"array": halves, "thickness": 1.5, "width": 0, "color": MUTED},
            mode="markers",
            marker={"size": 9, "color": [INK if gain == max(gains) else COLOR for gain in gains]},
            row=1,
            col=column,
        )
        figure.add_vline(x=0, line=ZERO, row=1, col=column)
    figure.update_layout(blank(470, left=140).layout)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", margin={"t": 40, "r": 20, "b": 60})
    figure.update_xaxes(showgrid=True, gridcolor=RULE, tickfont={"size": 11, "color": MUTED})
    figure.update_yaxes(gridcolor=RULE, tickfont={"size": 12, "color": INK})
    text = "points of balanced accuracy above balanced logistic regression on the same features"
    figure.add_annotation(
        text=text, x=0.5, y=-0.11, xref="paper", yref="paper", showarrow=False, font={"size": 12.5, "color": MUTED}
    )
    figure.write_image(out, width=1100, height=470, scale=2)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=Path("docs/results/candidates.csv"))
    parser.add_argument("--sets", nargs="+", help="sets to show; all when not given")
    parser.add_argument("--out", type=Path, help="file of the picture")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
