"""Fake runs that differ in chosen options."""

from __future__ import annotations

from itertools import product

from longtail.compare.comparison import compare_runs


def grid(make_run, options, *, slopes=None, seeds=1, recipe="cifar-lt/gcl", **more):
    """A run for each set of options and seed, with the recall falling by its slope towards the tail."""
    made = []
    for number, (chosen, seed) in enumerate(product(options, range(seeds))):
        nested = {}
        for name, value in chosen.items():
            part = nested
            *path, last = name.split(".")
            for step in path:
                part = part.setdefault(step, {})
            part[last] = value
        slope = 0.8 if slopes is None else slopes[number // seeds]
        run = make_run(
            f"{recipe.split('/')[-1]}-{number}", recipe=recipe, options=nested, slope=slope, seed=seed, **more
        )
        made.append(run)
    return compare_runs(made)
