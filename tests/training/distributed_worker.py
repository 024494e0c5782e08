"""One process of a distributed run: trains, notes which rows it saw, and evaluates a finished run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from longtail.data.loaders import Batch, ResidentLoader
from longtail.training.check import resolve_head
from longtail.training.engine import Engine
from longtail.training.evaluate_run import evaluate_run
from longtail.training.outputs import write_yaml
from longtail.training.progress import Reporter
from longtail.training.recipe import config_from_dict, read_config
from longtail.training.run import Experiment, make_engine


def main(config_file: str, out: str, finished: str) -> None:
    config = resolve_head(config_from_dict(read_config(config_file)))
    engine = make_engine(config)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(config, folder, Reporter(quiet=True), engine)
    seen: list[int] = []
    loader = experiment.loaders["train"]
    assert isinstance(loader, ResidentLoader)
    original = loader.batches

    def noting(rows: Tensor, batch_size: int) -> Iterator[Batch]:
        for batch in original(rows, batch_size):
            seen.extend(batch.rows.tolist())
            yield batch

    loader.batches = noting  # type: ignore[method-assign]
    experiment.run()
    (folder / f"rows-{engine.rank}.json").write_text(json.dumps(seen))
    _evaluate(engine, Path(finished), folder / "evaluated.json")
    # The same with batch normalisation, whose statistics differ between the processes while they train.
    config.model.name, config.stage1.epochs = "resnet20", 1
    normalised = folder / "normalised"
    normalised.mkdir(exist_ok=True)
    if engine.is_main:
        write_yaml(normalised / "config.yaml", asdict(config))
    Experiment(config, normalised, Reporter(quiet=True), engine).run()
    _evaluate(engine, normalised, normalised / "evaluated.json")
    engine.accelerator.end_training()


def _evaluate(engine: Engine, run: Path, file: Path) -> None:
    summary = evaluate_run(run)
    if engine.is_main:
        file.write_text(json.dumps(summary))


if __name__ == "__main__":
    main(*sys.argv[1:])
