"""The report at its largest: two runs over 8,142 classes and 24,426 test images, built, and opened in Chromium.

python benchmarks/report.py --json docs/performance/report.json
python benchmarks/report.py --keep /tmp/large     keeps the runs and the page, to look at
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from common import median_of, parser, row, rows_to_json, show
from PIL import Image

from longtail.analysis.confusions import FULL, choose_examples, usual_detail
from longtail.analysis.dynamics import BINS
from longtail.counts import ClassCounts
from longtail.run.dynamics import write_epoch
from longtail.run.tables import ExampleImage, write_examples
from longtail.training.artifacts import thumbnail

CLASSES, EACH, TRAIN, DRAWN, EPOCHS = 8142, 3, 20_000, 5_000, 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRAW_ALL = """async () => {
  document.querySelectorAll('details').forEach((details) => { details.open = true; });
  const plots = [...document.querySelectorAll('.plot')];
  for (const plot of plots) {
    plot.scrollIntoView({block: 'center'});
    while (!plot.dataset.drawn) await new Promise(done => setTimeout(done, 5));
  }
  return plots.length;
}"""
SEARCH = """async (name) => {
  const input = document.getElementById('class-search'), begun = performance.now();
  input.value = name;
  input.dispatchEvent(new Event('input'));
  const listed = performance.now() - begun;
  input.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}));
  while (document.getElementById('class-panel').hidden) await new Promise(done => setTimeout(done));
  await new Promise(done => requestAnimationFrame(done));
  const shown = performance.now() - begun;
  while (!document.querySelector('#class-panel .values')) await new Promise(done => setTimeout(done));
  return [listed, shown, performance.now() - begun];
}"""


def main() -> None:
    """Write the runs, build the page in a process of its own, and open it."""
    options = parser(__doc__ or "")
    options.add_argument("--keep", type=Path, default=None, metavar="DIR", help="write the runs and the page here")
    flags = options.parse_args()
    with nullcontext(flags.keep) if flags.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = ClassCounts(np.maximum(2, 1000 * np.arange(1, CLASSES + 1) ** -0.62).astype(int).tolist(), names())
        runs = [write_run(folder / recipe, recipe, counts, seed) for seed, recipe in enumerate(("ce", "gcl"))]
        page = folder / "report.html"
        words = [sys.executable, "-m", "longtail", "report", *map(str, runs), "--out", str(page)]
        seconds = median_of(
            lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL), flags.repeats, warmup=0
        )
        rows = [
            measured("built by a command of its own", seconds, "s"),
            measured("size of the page", page.stat().st_size / 1e6, "MB"),
        ]
        rows += [measured(title, value, unit) for title, value, unit in opened(page, counts.names[CLASSES // 2])]
    show(rows)
    rows_to_json(flags.json, rows)


def measured(title: str, value: float, unit: str) -> dict[str, Any]:
    """A row about this page."""
    name = f"report, {CLASSES:,} classes, {CLASSES * EACH:,} test images: {title}"
    return row(name, value, None, unit, higher_is_better=False, device=torch.device("cpu"))


def opened(page: Path, name: str) -> list[tuple[str, float, str]]:
    """Time in a browser: until all figures were drawn, and until a class is shown."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        tab.on("console", lambda message: errors.append(message.text))
        begun = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.querySelector('.plot').dataset.drawn")
        first = time.perf_counter() - begun
        tab.evaluate(DRAW_ALL)
        every = time.perf_counter() - begun
        listed, shown, values = tab.evaluate(SEARCH, name)
        browser.close()
    lost = [words for words in errors if "context" in words]
    if lost:
        raise SystemExit(f"the browser lost figures: {lost[0]}")
    return [
        ("first figure drawn", first, "s"),
        ("every figure drawn, scrolling through", every, "s"),
        ("names found for what was typed", listed, "ms"),
        ("the class shown", shown, "ms"),
        ("its values in every figure listed", values, "ms"),
    ]


def names() -> list[str]:
    """Names as long as those of species."""
    rng = np.random.default_rng(0)
    syllables = ["ba", "cer", "do", "fel", "gi", "lo", "mi", "nor", "pa", "qui", "rus", "sa", "tri", "vel", "xi", "zo"]
    words = ["".join(rng.choice(syllables, size=rng.integers(2, 5))) for _ in range(2 * CLASSES)]
    pairs = enumerate(zip(words[::2], words[1::2], strict=True))
    return [f"{adjective.capitalize()} {noun} {index}" for index, (adjective, noun) in pairs]


def write_run(folder: Path, recipe: str, counts: ClassCounts, seed: int) -> Path:
    """A run as training, ``longtail analyze`` and recording leave it, with numbers drawn at random."""
    if (folder / "metrics.json").exists():
        return folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(CLASSES), EACH)
    right = rng.random(len(label)) < np.clip(0.9 - 0.6 * counts.tail_weight, 0, 1)[label]
    prediction = np.where(right, label, rng.choice(CLASSES, len(label), p=counts.prior))
    (folder / "metrics.json").write_text(json.dumps(metrics(recipe, counts, label, prediction)))
    (folder / "config.yaml").write_text(yaml.safe_dump({"recipe": recipe, "data": {"source": "folder:species"}}))
    lines = ["stage,epoch,learning_rate,train_loss,train_accuracy"]
    lines += [f"stage1,{epoch},0.1,{9 / epoch},{1 - 1 / epoch}" for epoch in range(1, 201)]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    certain = rng.random((2, len(label)), dtype=np.float32)
    columns = {"label": label, "prediction": prediction, "confidence": certain[0], "probability_true": certain[1]}
    ranked = np.sort(rng.random((len(label), 5), dtype=np.float32), axis=1)[:, ::-1] / 5
    columns["top5_probabilities"] = pa.FixedSizeListArray.from_arrays(ranked.ravel(), 5)
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    write_examples(folder, example_images(counts, label, prediction, rng))
    write_analysis(folder / "analysis", label, rng)
    for epoch in range(1, EPOCHS + 1):
        sums = rng.random((CLASSES, 3 + BINS)) * counts.array[:, None]
        sums[:, 0], sums[:, 1] = -0.5 * sums[:, 0], sums[:, 0] + sums[:, 1]
        write_epoch(folder, 1, epoch, torch.from_numpy(sums), 1.0)
    return folder


def metrics(recipe: str, counts: ClassCounts, label: Any, prediction: Any) -> dict[str, Any]:
    """The content of metrics.json."""
    recall = np.bincount(label[label == prediction], minlength=CLASSES) / EACH
    group_of, groups = counts.group_of(), counts.groups()
    rows = [
        {
            "name": counts.names[j],
            "train_count": counts[j],
            "test_count": EACH,
            "group": group_of[j],
            "recall": float(recall[j]),
            "precision": 0.5,
            "f1": 0.5,
        }
        for j in range(CLASSES)
    ]
    test = {"num_images": len(label), "accuracy": float((label == prediction).mean()), "ece": 0.1, "nll": 2.0}
    test |= {"balanced_accuracy": float(recall.mean()), "worst_class": 0.0, "harmonic_mean": 0.0, "per_class": rows}
    test |= {name: float(recall[members].mean()) if len(members) else None for name, members in groups.items()}
    metrics = {"format": 1, "recipe": recipe, "classes": list(counts.names), "train_counts": list(counts.counts)}
    metrics |= {
        "groups": {name: members.tolist() for name, members in groups.items()},
        "test": test,
        "validation": None,
    }
    return metrics | {
        "seeds": {"seed": 0},
        "data_hash": "none",
        "versions": {},
        "hardware": {},
        "seconds": {"total": 1.0},
    }


def example_images(counts: ClassCounts, label: Any, prediction: Any, rng: np.random.Generator) -> list[ExampleImage]:
    """Pictures as training chooses and stores them; each as many bytes as a photograph of that size takes."""
    sure = rng.random(len(label))
    examples = choose_examples(label, prediction, sure, counts.array)
    rows: list[ExampleImage] = []

    def add(class_index: int, role: str, answer: int, confidence: float) -> None:
        pixels = Image.fromarray(rng.integers(60, 200, (12, 12, 3), dtype=np.uint8))
        picture = pixels.resize((96, 96), Image.Resampling.BICUBIC)
        image = thumbnail(picture, FULL if examples.close[class_index] else usual_detail(CLASSES))
        rows.append(ExampleImage(class_index, role, image, answer, confidence))

    for class_index in examples.classes.tolist():
        for _ in range((FULL if examples.close[class_index] else usual_detail(CLASSES)).pictures):
            add(class_index, "train", -1, 0.0)
    for index in examples.errors.tolist():
        add(int(label[index]), "error", int(prediction[index]), float(sure[index]))
    return rows


def write_analysis(folder: Path, label: Any, rng: np.random.Generator) -> None:
    """Write the files of ``longtail analyze``: a value an image, a value a class, and a few for each split."""
    folder.mkdir()
    images, classes = [], []
    for split in ("train", "test"):
        labels = label if split == "test" else rng.integers(0, CLASSES, TRAIN)
        count = len(labels)
        values = {name: rng.normal(size=count).astype(np.float32) for name in ("margin", "feature_norm")}
        values |= {name: rng.random(count).astype(np.float32) for name in ("confidence", "probability_true")}
        hidden = rng.permutation(count)[DRAWN:]
        for column in ("pca_x", "pca_y", "tsne_x", "tsne_y"):
            values[column] = rng.normal(size=count).astype(np.float32)
            values[column][hidden] = np.nan
        whole = {"index": np.arange(count), "label": labels, "prediction": labels}
        images.append(pa.table({"split": [split] * count} | whole | values))
        columns = (
            "spread",
            "nearest_distance",
            "ratio",
            "feature_norm",
            "feature_norm_std",
            "weight_norm",
            "bias",
            "angle",
        )
        columns += ("cloud_mean", "cloud_spread")
        per_class = {name: rng.random(CLASSES).astype(np.float32) for name in columns}
        shared = {
            "split": [split] * CLASSES,
            "class": np.arange(CLASSES),
            "images": np.bincount(labels, minlength=CLASSES),
        }
        classes.append(pa.table(shared | {"nearest": rng.integers(0, CLASSES, CLASSES)} | per_class))
    pq.write_table(pa.concat_tables(images), folder / "images.parquet")
    pq.write_table(pa.concat_tables(classes), folder / "classes.parquet")
    collapse = dict.fromkeys(
        ("within_between", "nc1", "equinorm", "equiangularity", "simplex_deviation", "duality"), 0.5
    )
    summary = {
        "images": TRAIN,
        "of": TRAIN,
        "drawn": DRAWN,
        "explained_variance": [0.3, 0.2],
        "uniformity": -2.0,
        "alignment": 0.7,
        "neural_collapse": collapse,
    }
    (folder / "summary.json").write_text(json.dumps({"format": 1, "splits": {"train": summary, "test": summary}}))


if __name__ == "__main__":
    main()
