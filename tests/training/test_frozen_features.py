"""Stage 2 on stored features: the same as through the backbone where nothing is drawn, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from ctrl_c import CtrlC
from mode_config import mode_config
from PIL import Image
from safetensors.torch import load_file

from longtail.config.build import with_options
from longtail.config.checks import check_config
from longtail.config.schema import DataConfig, RunConfig, TrainingConfig
from longtail.console import Interrupted, Reporter
from longtail.data.dataset import Split
from longtail.data.image_hashes import image_hashes
from longtail.data.loading.cache_folder import by_source, cache_entries
from longtail.data.loading.loaders import Batch, Loader, ResidentLoader, SinglePassLoader, count_batches
from longtail.data.loading.workers import Decoder
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.data.transforms.augmentation import BatchTransform
from longtail.errors import LongtailError
from longtail.experiments.evaluate import evaluate_run
from longtail.models.model import LongTailModel, build_model
from longtail.run.layout import read_config as config_of
from longtail.training import backbone_pass, feature_files
from longtail.training import frozen_features as features
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import FeatureStore, StoredFeatures
from longtail.training.launch import resume_run, start_run
from longtail.training.prepared_data import prepare_data

Build = Callable[..., RunConfig]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def feature_store(
    model: LongTailModel,
    split: Split,
    loader: Loader,
    *,
    augmentation: str = "none",
    cache: bool = False,
    fixed: bool = True,
    engine: Any = "torch",
) -> FeatureStore:
    """The features of a training split, whose images come out of a loader."""
    transform = BatchTransform((0.5,) * 3, (0.25,) * 3, augmentation=augmentation)
    return FeatureStore(
        Engine(TrainingConfig(device="cpu", precision="fp32", engine=engine)),
        model,
        {"train": ImageInputs(loader, transform)},
        {"train": Decoder(split, Square(8))},
        Reporter(quiet=True),
        {"features": 0.0},
        DataConfig(cache=cache),
        fixed=fixed,
    )


def random_split(count: int, classes: int = 1) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return Split.from_arrays(pixels, np.arange(count) % classes)


def resident(split: Split) -> ResidentLoader:
    images = torch.from_numpy(np.stack([Decoder(split, Square(8))(row) for row in range(len(split))]))
    return ResidentLoader(images, torch.from_numpy(split.labels.copy()), torch.device("cpu"))


@pytest.fixture
def two_stages(small_config: Build) -> Callable[..., RunConfig]:
    """GCL without mixing: batch normalization, noise in both stages, balanced draws in stage 2."""

    def build(views: int, augmentation: str = "none", **training: Any) -> RunConfig:
        stage = {"mixing": "none", "optimizer": {"lr": 0.05}}
        return small_config(
            "cifar-lt/gcl",
            epochs=1,
            data={"augmentation": augmentation, "image_size": 8},
            model={"name": "resnet20"},
            stage1=stage,
            stage2=stage | {"epochs": 3, "cached_views": views},
            training=training,
        )

    return build


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_augmentation_it_is_training_through_the_backbone(
    two_stages: Callable[..., RunConfig], quiet: Reporter, tmp_path: Path, precision: str
) -> None:
    for name, views in (("through", 0), ("cached", 1), ("many", 3)):
        start_run(two_stages(views, precision=precision), tmp_path / name, quiet)
    through, cached, many = (weights(tmp_path / name) for name in ("through", "cached", "many"))
    first = load_file(tmp_path / "through" / "stage1" / "model.safetensors")
    moved = (through["head.weight"] - first["head.weight"]).norm()
    assert moved > 0.01
    for other in (cached, many):  # every view of an image that is not augmented is the same
        for key, value in through.items():
            if key.startswith("backbone"):
                assert torch.equal(value, other[key])
        assert (through["head.weight"] - other["head.weight"]).norm() < 0.02 * moved


def test_a_resumed_run_has_the_same_views_whatever_stage_1_was_shown(
    two_stages: Callable[..., RunConfig], quiet: Reporter, tmp_path: Path
) -> None:
    config = with_options(two_stages(2, "crop-flip", ema_decay=0.9), {"stage1.augmentation": "none"})
    start_run(config, tmp_path / "whole", quiet)
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "stopped", quiet, callbacks=[CtrlC(2, 1, 4)])
    resume_run(config, tmp_path / "stopped", quiet)
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["seconds"]["features"] > 0


def test_views_are_drawn_for_the_global_batch() -> None:
    stored = StoredFeatures(torch.arange(5.0).view(5, 1, 1).expand(5, 4, 1), torch.zeros(4, dtype=torch.int64))

    def draw(rows: list[int], seed: int, **share: int) -> torch.Tensor:
        return stored.augment(next(stored.batches(torch.tensor(rows), 4)), torch.Generator().manual_seed(seed), **share)

    whole = draw([0, 1, 2, 3], 3)
    parts = [draw([r, r + 2], 3, rank=r, world_size=2) for r in (0, 1)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)
    drawn = torch.cat([draw([0, 1, 2, 3], s) for s in range(400)]).flatten()
    assert torch.bincount(drawn.long()).sub(320).abs().max() < 80  # 1,600 draws of five views; five standard deviations


def test_features_are_those_of_the_backbone_in_row_order() -> None:
    torch.manual_seed(0)
    model, split = build_model("resnet20", 3).eval(), random_split(7, 3)
    loader = resident(split)
    store = feature_store(model, split, loader, fixed=False)
    stored = store.views(2, 2, 0)
    with torch.no_grad():
        expected = model.backbone(store.inputs["train"].transform.normalize(loader.images))
    torch.testing.assert_close(stored.features, expected.expand(2, 7, 64), rtol=1e-4, atol=1e-5)
    assert stored.labels.tolist() == split.labels.tolist()


def test_stored_features_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path))
    torch.manual_seed(0)
    model, other = build_model("resnet20", 3).eval(), build_model("resnet20", 3).eval()
    split = random_split(7)

    def views(chosen: list[int], network: LongTailModel = model, *, cache: bool = True) -> tuple[torch.Tensor, int]:
        part = split.select(np.array(chosen))
        loader = resident(part)
        original, asked = loader.batches, list[torch.Tensor]()

        def batches(rows: torch.Tensor, size: int) -> Iterator[Batch]:
            asked.append(rows)
            return original(rows, size)

        monkeypatch.setattr(loader, "batches", batches)
        stored = feature_store(network, part, loader, augmentation="crop-flip", cache=cache).views(1, 2, 0)
        return stored.features, sum(map(len, asked))

    expected, computed = views([0, 1, 2, 3, 4, 5, 6], cache=False)
    assert computed == 7, "for both views"
    for chosen, new in (([0, 1, 2, 3], 4), ([3, 2, 1, 0], 0), ([6, 1, 1, 6, 3, 5, 4], 3), ([6, 0], 0)):
        features_of_chosen, computed = views(chosen)  # another split, a photo more, a copy, fewer
        assert computed == new, chosen
        torch.testing.assert_close(features_of_chosen, expected[:, chosen], rtol=1e-4, atol=1e-5)
    for file in tmp_path.glob("*.pixels"):
        file.write_bytes(file.read_bytes()[:-1])
    assert views([0, 1, 2, 3])[1] == 4, "a file of another length is not believed"
    assert views([0, 1, 2, 3], other)[1] == 4, "another network has other features"


def test_a_stopped_computation_keeps_the_parts_that_were_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(backbone_pass, "BATCH", 2)
    monkeypatch.setattr(feature_files, "AT_ONCE", 4)
    torch.manual_seed(0)
    model, split = build_model("resnet20", 3).eval(), random_split(10)
    ticks: list[None] = []

    def views(last: int | None = None, *, cache: bool = True) -> torch.Tensor:
        ticks.clear()

        def stop() -> None:
            ticks.append(None)
            if len(ticks) == last:
                raise Interrupted

        loader = SinglePassLoader(Decoder(split, Square(8)), torch.device("cpu"), 2)
        return feature_store(model, split, loader, augmentation="crop-flip", cache=cache).views(1, 3, 0, stop).features

    expected = views(cache=False)
    assert len(ticks) == 15
    with pytest.raises(Interrupted):
        views(last=14)  # in the last of the three parts
    continued = views()
    assert len(ticks) == 3
    assert torch.equal(continued, expected)


def test_a_cache_that_cannot_be_used_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(feature_files, "AT_ONCE", 4)
    split, notes = random_split(10), list[str]()
    store = feature_store(build_model("plain-cnn", 3).eval(), split, resident(split), augmentation="flip", cache=True)
    store.reporter = Mock(wraps=store.reporter, say=notes.append)
    store.views(1, 2, 0)
    store.plain("train")
    assert [("cannot be used" in note) for note in notes] == [True]


def test_an_image_is_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "photos" / "lynx").mkdir(parents=True)

    def hashes() -> list[bytes]:
        return image_hashes(load_source(f"folder:{tmp_path / 'photos'}").splits["train"])

    photo = tmp_path / "photos" / "cat" / "1.png"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), (10, 10, 10)).save(photo)
    before = hashes()
    times, size = (photo.stat().st_atime_ns, photo.stat().st_mtime_ns), photo.stat().st_size
    moved = shutil.copytree(photo.parent, tmp_path / "photos" / "a copy") / "1.png"
    assert hashes() == before * 2
    Image.new("RGB", (8, 8), (99, 99, 99)).save(moved)
    os.utime(moved, ns=times)
    assert moved.stat().st_size == size
    assert hashes()[0] != before[0], "rewritten with the same size and date"


def test_features_that_do_not_fit_are_refused(
    two_stages: Callable[..., RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "memory_budget", lambda device: 1e6)
    with pytest.raises(LongtailError, match=r"9 views of .* --stage2\.cached_views"):
        start_run(two_stages(9), tmp_path / "run", quiet)


@pytest.mark.parametrize(
    ("stage", "change", "remedy"),
    [
        ("stage1", {"cached_views": 1}, "frozen backbone"),
        ("stage2", {"cached_views": 1, "mixing": "mixup"}, "--stage2.mixing none"),
    ],
)
def test_what_cannot_be_trained_on_features(
    small_config: Build, quiet: Reporter, tmp_path: Path, stage: str, change: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(LongtailError, match=remedy):
        start_run(small_config("cifar-lt/gcl", epochs=1, **{stage: change}), tmp_path / "run", quiet)


def test_a_run_starts_from_the_weights_of_another(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    still = {"epochs": 1, "optimizer": {"lr": 0.0}}
    start_run(small_config("cifar-lt/gcl", stage1={"epochs": 1}, stage2=still), tmp_path / "first", quiet)
    stage1 = str(tmp_path / "first" / "stage1")
    first = weights(tmp_path / "first" / "stage1")

    same = small_config("cifar-lt/gcl", stage1={"epochs": 0}, stage2=still, model={"weights": stage1})
    start_run(same, tmp_path / "same", quiet)
    assert all(torch.equal(first[key], value) for key, value in weights(tmp_path / "same").items())

    other = small_config("cifar-lt/ce", stage1=still, model={"weights": stage1})  # a linear head on the cosine one's
    start_run(other, tmp_path / "other", quiet)
    others = weights(tmp_path / "other")
    assert all(torch.equal(first[key], others[key]) for key in first if key.startswith("backbone"))
    assert others["head.bias"].shape == (10,)

    wrong = small_config("cifar-lt/ce", stage1=still, model={"weights": stage1, "name": "resnet20"})
    with pytest.raises(LongtailError, match=r"--model\.name plain-cnn"):
        start_run(wrong, tmp_path / "wrong", quiet)


def test_a_backbone_that_takes_fewer_images_at_a_time_gives_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size that fits is looked for once, and kept for the images that follow."""
    torch.manual_seed(0)
    model, split = build_model("resnet20", 3).eval(), random_split(300)  # one full part of 256, and the rest
    store = feature_store(model, split, resident(split), fixed=False)
    tried: list[int] = []

    class Small(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tried.append(len(images))
            if len(images) > 100:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            outputs: torch.Tensor = model.backbone(images)
            return outputs

    expected = store.views(2, 1, 0).features
    monkeypatch.setattr(backbone_pass, "fold_batch_norms", lambda _: Small())
    monkeypatch.setattr(backbone_pass, "forward_batch", lambda *_: 256)
    torch.testing.assert_close(store.views(2, 1, 0).features, expected, rtol=1e-4, atol=1e-4)
    assert tried == [256, 128, 64, 64, 64, 64, 44]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache folder of its own, and the seeds of each pass over images that computes features into it."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []
    inner = features.backbone_pass

    def pass_once(*args: Any) -> Any:
        seen.append(str(args[-2]))
        return inner(*args)

    monkeypatch.setattr(features, "backbone_pass", pass_once)
    return seen


def test_linear_mode_trains_on_features_computed_once(counted: list[str], tmp_path: Path, quiet: Reporter) -> None:
    stage = {"cached_views": 2, "epochs": 15, "optimizer": {"lr": 0.02}}
    config = mode_config("mixup-crt", "linear", "plain-cnn", stage1=stage, stage2=stage)
    check_config(config)
    metrics = start_run(config, tmp_path / "run", quiet)
    assert len(counted) == 3  # training images (both views at once), validation, test; stage 2 reads them from disk
    assert metrics["test"]["accuracy"] > 0.15
    before = load_file(tmp_path / "run" / "model.safetensors")
    start_run(config, tmp_path / "again", quiet)
    assert len(counted) == 3  # so does the next run
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(before[key], again[key]) for key in before)


@pytest.mark.parametrize("change", [{"policy": "rand-augment"}, {"cutout": 8}])
def test_features_are_of_images_with_every_change_that_was_asked_for(
    change: dict[str, Any], counted: list[str], tmp_path: Path, quiet: Reporter
) -> None:
    stage = {"cached_views": 1, "epochs": 1}
    config = mode_config("ce", "linear", "plain-cnn", data={"augmentation": "none", **change}, stage1=stage)
    start_run(config, tmp_path / "run", quiet)
    assert counted[0] == "[(4, 0)]"  # seeds of a view, not of plain images


def test_features_of_images_made_square_in_another_way_are_others(
    counted: list[str], tmp_path: Path, quiet: Reporter
) -> None:
    for run, fit, computed in (("crop", "crop", 3), ("pad", "pad", 6), ("again", "pad", 6)):
        config = mode_config("ce", "linear", "plain-cnn", data={"fit": fit}, stage1={"cached_views": 1, "epochs": 1})
        start_run(config, tmp_path / run, quiet)
        assert len(counted) == computed, run
    evaluate_run(tmp_path / "pad")
    assert len(counted) == 6, "an evaluation shows the images as the run did"


def test_where_only_features_are_needed_no_pixels_are_kept(
    counted: list[str], tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtail.experiments.analyze import analyze_run

    monkeypatch.setattr("longtail.data.loading.cache.SMALLEST_BYTES", 0)
    monkeypatch.setattr(ResidentLoader, "__init__", None)  # nor are they in memory
    start_run(mode_config("ce", "linear", stage1={"cached_views": 2}), tmp_path / "run", quiet)
    evaluate_run(tmp_path / "run")
    analyze_run(tmp_path / "run", projections=())
    (use,) = by_source(cache_entries())
    assert (use.source, use.what) == ("digits", "features of timm:test_resnet")
    images = sum(map(len, prepare_data(config_of(tmp_path / "run").data).data.splits.values()))
    assert use.images == images  # views count once


def test_what_trains_through_the_backbone_keeps_its_pixels(
    counted: list[str], tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.data.loading.cache.SMALLEST_BYTES", 0)
    config = mode_config("mixup-crt", "finetune", "plain-cnn", stage1={"optimizer": {"layer_decay": None}})
    start_run(config, tmp_path / "run", quiet)
    assert counted  # stage 2 is on features
    assert {use.what for use in by_source(cache_entries())} == {"pixels at 32 px"}


def test_other_pixels_have_other_features(counted: list[str], tmp_path: Path, quiet: Reporter) -> None:
    config = mode_config("ce", "linear", stage1={"cached_views": 1})
    start_run(config, tmp_path / "run", quiet)
    config = with_options(config, {"data.mean": [0.4, 0.5, 0.5]})
    start_run(config, tmp_path / "other", quiet)
    assert len(counted) == 6
    config = with_options(config, {"training.seed": 1})
    start_run(config, tmp_path / "seed", quiet)
    assert len(counted) == 9  # a network of other weights, as these are no pretrained ones


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("augmentation", ["crop-flip", "random-resized-crop"])
def test_features_of_another_engine_are_computed_and_agree(
    augmentation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path))
    torch.manual_seed(0)
    model, split = build_model("resnet20", 3).eval(), random_split(20)
    views, entries = {}, []
    for engine in ("torch", "openvino", "openvino"):
        store = feature_store(model, split, resident(split), augmentation=augmentation, cache=True, engine=engine)
        assert store.runs_on is None
        views[engine] = store.views(1, 2, 0).features
        assert store.runs_on == engine
        entries.append(len(list(tmp_path.glob("*.pixels"))))
    assert entries == [2, 4, 4], "two views by each engine, read the third time"
    torch.testing.assert_close(views["openvino"], views["torch"], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("count", [64, 257, 321])
@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_openvino_fills_every_row_and_tells_of_every_batch(count: int, augmentation: str) -> None:
    torch.manual_seed(0)
    model, split = build_model("plain-cnn", 3).eval(), random_split(count)
    store = feature_store(model, split, resident(split), augmentation=augmentation, fixed=False, engine="openvino")
    rows, numbers, views = torch.arange(count).flip(0), list(range(count)), [(4, 0), (4, 1)]
    ticks: list[None] = []
    ours, theirs = (
        backbone_pass.backbone_pass(
            store.engine, network, store.inputs["train"], rows, numbers, views, lambda: ticks.append(None)
        )
        for network in (store.network, model)
    )
    assert len(ticks) == 2 * 2 * count_batches(count, backbone_pass.BATCH), "both views by both engines"
    for view, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(view, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours[0], ours[1]) is (augmentation == "none")
