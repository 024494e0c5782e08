"""Redo the published comparison on CIFAR-LT: all recipes, four ratios, three seeds, last epoch; a grid of runs.

python benchmarks/reproduce.py --out runs/reproduce                            # everything; can be stopped and repeated
python benchmarks/reproduce.py --out runs/reproduce --datasets cifar100 --ratios 100 --recipes ce gcl --seeds 1

It can be done in as many calls as it takes, also on several machines: the rows of other runs that a file has stay, and
the results page is made anew from all rows after each grid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from collect_results import fill, finished, write_rows
from common import train_grid

from longtail.config.recipes import list_recipes

# IR 100 first: the ratio that every paper reports.
RATIOS = (100, 50, 200, 10)


def main() -> int:
    """Plan one grid for each data set and ratio, train what is not finished, and gather the rows."""
    flags = _flags()
    status = 0
    for ratio in flags.ratios:
        for dataset in flags.datasets:
            out = flags.out / f"{dataset}-lt-{ratio}{f'-{flags.epochs}-epochs' if flags.epochs else ''}"
            status |= train_grid(grid(flags, dataset, ratio), out, flags.jobs)
            runs = finished(out)
            if runs:
                write_rows(runs, flags.csv / f"{out.name}.csv", keep=True)
                fill(flags.csv / "index.md")
    return status


def grid(flags: argparse.Namespace, dataset: str, ratio: int) -> dict[str, object]:
    """The grid file of one data set at one ratio."""
    options = {"data.imbalance_ratio": float(ratio), "training.precision": flags.precision}
    return {
        "source": getattr(flags, dataset),
        "seeds": flags.seeds,
        "baseline": "ce" if "ce" in flags.recipes else flags.recipes[0],
        "set": options | {"training.compile": flags.compile},
        "runs": {recipe: {"recipe": f"cifar-lt/{recipe}"} for recipe in flags.recipes},
    } | ({"epochs": flags.epochs} if flags.epochs else {})


def _flags() -> argparse.Namespace:
    recipes = [name.removeprefix("cifar-lt/") for name in list_recipes() if name.startswith("cifar-lt/")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--csv", type=Path, default=Path("docs/results"), help="folder of the rows")
    parser.add_argument("--datasets", nargs="+", choices=["cifar100", "cifar10"], default=["cifar100", "cifar10"])
    parser.add_argument("--cifar100", default="cifar100", metavar="SOURCE", help="where CIFAR-100 comes from")
    parser.add_argument("--cifar10", default="cifar10", metavar="SOURCE", help="where CIFAR-10 comes from")
    parser.add_argument("--ratios", nargs="+", type=int, default=list(RATIOS))
    parser.add_argument("--recipes", nargs="+", choices=recipes, default=recipes, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="a short schedule instead of the published one")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--jobs", type=int, default=None, help="runs at once")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
