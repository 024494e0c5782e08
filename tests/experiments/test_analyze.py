"""`longtail analyze` on small runs: it collects the outputs of the model, complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from longtail.analysis.columns import Analysis
from longtail.config.build import build
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import Split
from longtail.errors import LongtailError
from longtail.experiments import analyze
from longtail.experiments.analyze import ModelOutputs, analyze_run, feature_table, write_features
from longtail.run import read
from longtail.run.layout import read_config
from longtail.run.model_files import load_run
from longtail.training.launch import start_run
from longtail.training.prepared_data import make_transform, prepare_data


def config(recipe: str, **overrides: object) -> RunConfig:
    tiny = {
        "data": {"source": "digits", "imbalance_ratio": 20, "image_size": 16},
        "model": {"name": "plain-cnn"},
        "training": {"precision": "fp32"},
    }
    return complete(build(merge(merge(base_config(recipe, epochs=1), tiny), overrides)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a cosine classifier and a noisy loss, analyzed without projections that take time."""
    out = tmp_path_factory.mktemp("analyze") / "gcl"
    start_run(config("demo/gcl"), out, Reporter(quiet=True))
    analyze_run(out, projections=["pca"])
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def analysis_of(run: Path) -> Analysis:
    analysis = read(run).analysis
    assert analysis is not None
    return analysis


def test_every_test_image_is_there_with_what_the_run_said_of_it(run: Path) -> None:
    test = analysis_of(run).test
    assert test is not None
    predictions = pq.read_table(run / "predictions.parquet")
    for name in ("index", "label", "prediction"):
        assert getattr(test.images, name).tolist() == predictions[name].to_pylist()
    for name in ("confidence", "probability_true"):
        assert getattr(test.images, name) == pytest.approx(predictions[name].to_numpy(), abs=1e-5)
    right = test.images.prediction == test.images.label
    assert ((test.images.margin > 0) == right).all()
    assert 0 < right.mean() < 1


def test_the_columns_are_those_of_features_computed_here(run: Path) -> None:
    """Margins in the units softmax sees, norms of raw features, geometry of their directions: the head is cosine."""
    model, info = load_run(run)
    prepared = prepare_data(read_config(run).data)
    split = prepared.split("train")
    assert split is not None
    pixels = np.stack([np.asarray(split.image(i).convert("RGB").resize((16, 16), 3)) for i in range(40)])
    images = make_transform(read_config(run).data).normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        logits, features = model(images, return_features=True)
    scores, label = logits * info.logit_scale, torch.from_numpy(split.labels[:40].copy())
    true_scores = scores.gather(1, label[:, None])[:, 0]
    other = scores.scatter(1, label[:, None], -np.inf).amax(1)
    train = analysis_of(run).train
    assert train is not None
    assert train.images.index.tolist() == list(range(len(split)))
    assert train.images.margin[:40] == pytest.approx((true_scores - other).numpy(), abs=0.02)
    assert train.images.feature_norm[:40] == pytest.approx(features.norm(dim=1).numpy(), rel=1e-3)
    assert train.classes.images.tolist() == list(prepared.counts)
    assert train.classes.weight_norm == pytest.approx(model.head.weight.detach().norm(dim=1).numpy(), rel=1e-5)
    assert np.isnan(train.classes.bias).all()
    assert (train.classes.nearest_distance <= 2).all()  # of directions
    assert train.summary["of"] == train.summary["images"] == prepared.counts.total


def test_the_cloud_is_that_of_the_training_loss_and_absent_for_test(run: Path) -> None:
    analysis = analysis_of(run)
    assert analysis.train is not None
    assert analysis.test is not None
    counts = read(run).counts.array
    mean = analysis.train.classes.cloud_mean
    assert mean[counts.argmax()] == 0
    assert mean[counts.argmin()] == mean.min() < 0
    assert np.isnan(analysis.test.classes.cloud_mean).all()


def test_only_what_was_asked_for_is_projected(run: Path) -> None:
    test = analysis_of(run).test
    assert test is not None
    assert np.isfinite(test.images.pca_x).all()
    assert np.isnan(test.images.tsne_x).all()
    assert len(test.summary["explained_variance"]) == 2
    pictures = {example.image for example in read(run).examples}
    (run / "examples.parquet").unlink()
    analyze_run(run, projections=[])
    assert {example.image for example in read(run).examples} == pictures
    again = analysis_of(run).test
    assert again is not None
    assert np.isnan(again.images.pca_x).all()
    assert (again.summary["drawn"], again.summary["explained_variance"]) == (0, None)


def test_a_large_training_split_is_a_sample_and_so_is_what_is_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = analysis_of(run).train
    monkeypatch.setattr(analyze, "TRAIN_IMAGES", 100)
    monkeypatch.setattr(analyze, "DRAWN", 30)
    analysis = analyze_run(run, projections=["pca", "tsne"], seed=1)
    assert analysis.train is not None
    assert analysis.test is not None
    assert whole is not None
    assert 80 < len(analysis.train.images.index) <= 100
    assert (analysis.train.classes.images > 0).all()
    assert analysis.train.images.margin == pytest.approx(whole.images.margin[analysis.train.images.index], abs=1e-4)
    assert 0 < np.isfinite(analysis.test.images.pca_x).sum() <= 30
    assert (np.isfinite(analysis.test.images.tsne_x) == np.isfinite(analysis.test.images.pca_x)).all()
    assert analysis.test.summary["drawn"] == np.isfinite(analysis.test.images.pca_x).sum()
    stored = analysis_of(run).train
    assert stored is not None
    assert stored.images.index.tolist() == analysis.train.images.index.tolist()


def test_a_linear_head_has_a_bias_and_its_features_keep_their_length(tmp_path: Path) -> None:
    out = tmp_path / "ce"
    start_run(config("demo/ce"), out, Reporter(quiet=True))
    analysis = analyze_run(out, projections=[]).test
    assert analysis is not None
    model, _ = load_run(out)
    assert analysis.classes.bias == pytest.approx(model.head.bias.detach().numpy())
    assert json.loads((out / "analysis" / "summary.json").read_text())["features"] == "as they are"
    assert np.isnan(analysis.classes.cloud_mean).all()


def test_changed_images_are_refused_and_the_analysis_stays(run: Path) -> None:
    before = (run / "analysis" / "images.parquet").read_bytes()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"data_hash": "sha256:other"}))
    with pytest.raises(LongtailError, match="back"):
        analyze_run(run)
    (run / "metrics.json").unlink()
    with pytest.raises(LongtailError, match=r"metrics\.json.*--resume"):
        analyze_run(run)
    assert (run / "analysis" / "images.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "content", "remedy"),
    [
        ("images.parquet", b"PAR1 no more", "longtail analyze"),
        ("classes.parquet", None, "longtail analyze"),
        ("summary.json", b"{", "longtail analyze"),
        ("summary.json", b"[]", "longtail analyze"),
        ("summary.json", b'{"format": 2, "splits": {}}', "update longtail"),
    ],
)
def test_damaged_files_name_the_remedy(run: Path, file: str, content: bytes | None, remedy: str) -> None:
    path = run / "analysis" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(LongtailError, match=remedy) as error:
        _ = read(run).analysis
    assert str(path) in str(error.value)


def test_an_analysis_of_other_classes_or_columns_is_refused_and_none_is_none(run: Path) -> None:
    table = pq.read_table(run / "analysis" / "classes.parquet")
    pq.write_table(table.slice(1), run / "analysis" / "classes.parquet")
    with pytest.raises(LongtailError, match="other classes"):
        _ = read(run).analysis
    pq.write_table(table.drop_columns(["angle"]), run / "analysis" / "classes.parquet")
    with pytest.raises(LongtailError, match="'angle'"):
        _ = read(run).analysis
    shutil.rmtree(run / "analysis")
    assert read(run).analysis is None


def test_features_of_every_image_are_a_table(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyze, "TRAIN_IMAGES", 50)  # the analysis takes a sample, the table all
    before = analyze_run(run, projections=[])
    analysis = analyze_run(run, projections=[], features=tmp_path / "features.parquet")
    table = pq.read_table(tmp_path / "features.parquet")
    prepared = prepare_data(read_config(run).data)
    sizes = {name: len(split) for name, split in prepared.data.splits.items()}
    assert {name: table["split"].to_pylist().count(name) for name in sizes} == sizes
    assert analysis.train is not None
    assert before.train is not None
    assert len(analysis.train.images.index) == 50
    np.testing.assert_array_equal(analysis.train.images.index, before.train.images.index)
    np.testing.assert_allclose(analysis.train.images.feature_norm, before.train.images.feature_norm, rtol=1e-5)
    test = table.filter(pc.field("split") == "test")
    features = test["features"].combine_chunks().flatten().to_numpy().reshape(len(test), -1)
    assert features.dtype == np.float32
    assert analysis.test is not None
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), analysis.test.images.feature_norm, rtol=1e-5)
    assert test["label"].to_pylist() == prepared.data.splits["test"].labels.tolist()
    assert test["label_name"].to_pylist()[0] == prepared.data.classes[test["label"][0].as_py()]
    assert test["path"].to_pylist()[0] == prepared.data.splits["test"].path(0)


def test_features_as_npz_hold_no_objects(tmp_path: Path) -> None:
    split = Split.from_arrays(np.zeros((2, 4, 4), np.uint8), [1, 0])
    outputs = ModelOutputs({"label": np.array([1, 0])}, np.arange(6, dtype=np.float32).reshape(2, 3))
    write_features(tmp_path / "a.npz", feature_table({"test": outputs}, {"test": split}, ["cat", "lynx"]))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["features"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["label_name"].tolist() == ["lynx", "cat"]
        assert arrays["path"].tolist() == ["row 0", "row 1"]
