"""The loop itself: what a stage trains, options that must not change the method, and a loss that turns NaN."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from longtail.config.build import build, with_options
from longtail.config.recipes import list_recipes
from longtail.config.resolve import complete
from longtail.config.schema import LossConfig, ModelConfig, OptimizerConfig, RunConfig, StageConfig, TrainingConfig
from longtail.console import Interrupted, Reporter
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.transforms.augmentation import BatchTransform
from longtail.errors import LongtailError
from longtail.models.model import LongTailModel, build_model
from longtail.run.checkpoint import load_checkpoint
from longtail.training.engine import Engine
from longtail.training.experiment import resume_run, start_run
from longtail.training.forward_pass import ImageInputs
from longtail.training.loop import Callback, Meter, Progress, StageRun, train_epoch
from longtail.training.split_evaluation import evaluate
from longtail.training.stages import build_stage, set_trainable

Build = Callable[..., RunConfig]
TRANSFORM = BatchTransform((0.5,) * 3, (0.25,) * 3)


def make_stage(
    stage: StageConfig, training: TrainingConfig, model: LongTailModel, *, index: int = 1, images: int = 24
) -> StageRun:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(images) % 3
    engine = Engine(training)
    set_trainable(model, stage, ModelConfig())
    counts = ClassCounts.from_labels(labels.numpy(), 3)
    inputs = ImageInputs(ResidentLoader(pixels, labels, engine.device), TRANSFORM)
    return build_stage(engine, stage, index, model=model, counts=counts, labels=labels.numpy(), inputs=inputs)


def one_epoch(stage: StageConfig, training: TrainingConfig, name: str = "plain-cnn") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(name, 3, "linear")
    train_epoch(make_stage(stage, training, model), 0)
    return {key: value.clone() for key, value in model.state_dict().items()}


def cpu(**options: Any) -> TrainingConfig:
    return TrainingConfig(**({"device": "cpu", "precision": "fp32"} | options))


@pytest.mark.parametrize("train", ["classifier", "scales"])
@pytest.mark.parametrize("name", ["resnet20", "plain-cnn"])
def test_stage_2_leaves_the_backbone_bit_identical(train: Any, name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, "linear")
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    weight = model.head.weight.detach().clone()
    stage = StageConfig(epochs=1, batch_size=8, train=train, sampler="class-balanced", mixing="mixup")
    train_epoch(make_stage(stage, cpu(), model, index=2), 0)
    after = model.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)  # batch-norm buffers are among them
    if train == "classifier":
        assert not torch.equal(model.head.weight, weight)
    else:
        assert torch.equal(model.head.head.weight, weight)
        assert not torch.equal(model.head.scale_logits, torch.ones(3))


STILL: dict[str, Any] = {"epochs": 1, "optimizer": {"lr": 0.0}}  # a stage that changes nothing by its steps


def without_and_with_stage_2(config: RunConfig, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Weights of a run without its second stage, and of the whole run."""
    reporter = Reporter(quiet=True)
    start_run(with_options(config, {"stage2.epochs": 0}), folder / "first", reporter)
    start_run(config, folder / "both", reporter)
    return [load_file(folder / name / "model.safetensors") for name in ("first", "both")]


def test_stage_2_starts_from_the_classifier_of_stage_1(small_config: Build, tmp_path: Path) -> None:
    first, both = without_and_with_stage_2(small_config("cifar-lt/gcl", stage1={"epochs": 1}, stage2=STILL), tmp_path)
    assert all(torch.equal(first[key], both[key]) for key in first)


def test_crt_starts_the_classifier_anew(small_config: Build, tmp_path: Path) -> None:
    config = small_config("cifar-lt/mixup-crt", stage1={"epochs": 1}, stage2=STILL)
    first, both = without_and_with_stage_2(config, tmp_path)
    assert not torch.equal(first["head.weight"], both["head.weight"])
    assert all(torch.equal(first[key], both[key]) for key in first if key.startswith("backbone"))


def test_accumulation_gives_the_gradient_of_the_whole_batch() -> None:
    stage = StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.01))
    whole, parts = one_epoch(stage, cpu()), one_epoch(stage, cpu(accumulation=3))
    assert all(torch.allclose(whole[key], parts[key], atol=1e-6) for key in whole)
    assert any(not torch.equal(whole[key], parts[key]) for key in whole)


def test_clipping_bounds_the_step() -> None:
    stage = StageConfig(epochs=1, batch_size=24, optimizer=OptimizerConfig(lr=1.0, momentum=0.0, weight_decay=0.0))
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    moved = one_epoch(stage, cpu(clip_norm=0.01))
    step = torch.cat([(moved[key] - start[key]).flatten() for key in start]).norm()
    assert step.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": False}])
def test_options_of_speed_stay_near_the_plain_path(options: dict[str, Any]) -> None:
    stage = StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.05))
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    plain, other = one_epoch(stage, cpu()), one_epoch(stage, cpu(**options))
    moved = max((plain[key] - start[key]).abs().max().item() for key in plain)
    apart = max((plain[key] - other[key]).abs().max().item() for key in plain)
    assert apart < 0.3 * moved


def test_the_moving_average_is_the_one_computed_by_hand(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    """One step an epoch, so that the weights after each step are those of a run of that many epochs."""
    weights_by_run = {}
    for name, epochs, decay in (("1", 1, None), ("2", 2, None), ("3", 3, None), ("average", 3, 0.5)):
        stage = {"epochs": epochs, "batch_size": 10_000, "optimizer": {"lr": 0.02, "weight_decay": 0.0}}
        start_run(small_config(stage1=stage, training={"ema_decay": decay}), tmp_path / name, quiet)
        weights_by_run[name] = load_file(tmp_path / name / "model.safetensors")
    second, third = 1 - 2 ** (-2 / 3), 0.5  # 1 - (step)^(-2/3), rising from 0 at the first step to the decay asked for
    for key, value in weights_by_run["average"].items():
        after_two = second * weights_by_run["1"][key] + (1 - second) * weights_by_run["2"][key]
        torch.testing.assert_close(value, third * after_two + (1 - third) * weights_by_run["3"][key])
    assert not torch.equal(weights_by_run["1"]["head.weight"], weights_by_run["3"]["head.weight"])


@pytest.mark.parametrize("training", [{}, {"accumulation": 4}])
def test_a_last_batch_of_one_image_does_not_trouble_batch_normalization(training: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build_model("timm:resnet10t", 3, "linear")  # its last feature map is 1 x 1 for these images
    stage = make_stage(StageConfig(epochs=1, batch_size=8), cpu(**training), model, images=17)
    train_epoch(stage, 0)
    assert stage.steps == 2
    assert stage.meter.sums[2].item() == 17


def test_weights_that_are_not_finite_are_never_saved(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    class Ruin(Callback):
        def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
            if row["epoch"] == 2:
                stage.model.get_parameter("head.weight").data.fill_(float("inf"))

    config = small_config(stage1={"epochs": 3}, data={"validation_fraction": 0.0})
    with pytest.raises(LongtailError, match="finite"):
        start_run(config, tmp_path / "run", quiet, callbacks=[Ruin()])
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state.values["epoch"] == 1


def test_predictions_break_ties_as_the_metric_does() -> None:
    """Scores of bfloat16 are often equal: both name the first class of the highest."""
    from longtail.evaluation.confusion import EvaluationMetrics
    from longtail.training.split_evaluation import TOP, predict_rows

    scores = torch.randint(0, 3, (500, 40), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(1))
    rows, metric = predict_rows(scores, labels, torch.arange(500)), EvaluationMetrics(40)
    metric.update(scores, labels)
    confusion = torch.zeros(40, 40, dtype=torch.int64)
    confusion.view(-1).index_add_(0, labels * 40 + rows["prediction"], torch.ones(500, dtype=torch.int64))
    assert torch.equal(confusion, metric.compute()["confusion"])
    assert torch.equal(rows["top5"][:, 0], rows["prediction"])
    assert rows["top5"].shape == (500, TOP)
    assert all(len(set(row)) == TOP for row in rows["top5"].tolist())
    torch.testing.assert_close(rows["confidence"], scores.softmax(dim=1).max(dim=1).values)


def test_resuming_needs_no_published_weights(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    config = small_config(model={"name": "timm:test_resnet.r160_in1k"}, stage1={"epochs": 1})
    start_run(config, tmp_path / "run", quiet)
    (tmp_path / "run" / "metrics.json").unlink()
    config = with_options(config, {"model.pretrained": True})  # on a hub, which tests never reach: a new run is refused
    with pytest.raises(LongtailError, match="this machine"):
        start_run(config, tmp_path / "new", quiet)
    assert resume_run(config, tmp_path / "run", quiet)["test"]["num_images"] == 359


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "remix", "cmo"])
def test_every_mixing_trains_and_repeats(mixing: Any) -> None:
    stage = StageConfig(epochs=1, batch_size=8, mixing=mixing, optimizer=OptimizerConfig(lr=0.01))
    first, second = one_epoch(stage, cpu()), one_epoch(stage, cpu())
    assert all(torch.equal(first[key], second[key]) for key in first)
    plain = one_epoch(StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.01)), cpu())
    assert not torch.equal(first["head.weight"], plain["head.weight"])


class StopAfterOneStep(Callback):
    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        raise Interrupted


def test_a_step_depends_on_nothing_but_seed_epoch_and_step() -> None:
    """Steps 2 and 3 of an epoch are the same whether steps 0 and 1 were made in this process or not."""
    stage = StageConfig(epochs=1, batch_size=8, mixing="mixup", loss=LossConfig("feature-noise"))
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "linear")
    train_epoch(make_stage(stage, cpu(), model), 0)
    torch.manual_seed(0)
    again = build_model("plain-cnn", 3, "linear")
    parts = make_stage(stage, cpu(), again)
    parts.callbacks = [StopAfterOneStep()]
    with pytest.raises(Interrupted):
        train_epoch(parts, 0)
    parts.callbacks = []
    torch.rand(100)  # somebody else uses the global generator
    train_epoch(parts, 0, 1)
    assert torch.equal(model.head.weight, again.head.weight)


def test_losses_see_the_progress_of_the_stage() -> None:
    torch.manual_seed(0)
    stage = make_stage(StageConfig(epochs=4, batch_size=8), cpu(), build_model("plain-cnn", 3, "linear"))
    seen: list[float] = []

    class Note(Callback):
        def on_step_end(self, stage: StageRun, progress: Progress) -> None:
            seen.append(stage.loss.progress)

    stage.callbacks = [Note()]
    train_epoch(stage, 2)
    assert seen == pytest.approx([0.5, 0.5 + 1 / 12, 0.5 + 2 / 12])


@pytest.mark.parametrize("steps", [0, 1])
def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(
    steps: int, small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(stage1={"epochs": 3}, training={"checkpoint_steps": steps})
    from longtail.losses import CrossEntropyLoss

    original = CrossEntropyLoss.forward

    def burst(self: CrossEntropyLoss, *args: Any, **options: Any) -> torch.Tensor:
        value = original(self, *args, **options)
        return value * float("nan") if self.progress > 0.5 else value

    monkeypatch.setattr(CrossEntropyLoss, "forward", burst)
    with pytest.raises(LongtailError, match=r"epoch 2, step \d+, learning rate 0\.02.*--stage1\.optimizer\.lr"):
        start_run(config, tmp_path / "run", quiet)
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert (state.values["stage"], state.values["epoch"]) == (1, 1)
    assert all(tensor.isfinite().all() for tensor in state.take("model").values())


def test_a_cosine_loss_on_a_linear_classifier_is_refused(small_config: Build) -> None:
    with pytest.raises(LongtailError, match=r"--model\.head cosine"):
        small_config("cifar-lt/gcl", model={"head": "linear"})


def test_the_head_follows_the_loss() -> None:
    for name, head in (("gcl", "cosine"), ("fbl", "linear"), ("ldam", "cosine"), ("cross-entropy", "linear")):
        assert complete(build({"stage1": {"loss": {"name": name}}})).model.head == head


LARGE = [name for name in list_recipes() if name.split("/")[0] in {"imagenet-lt", "inaturalist", "places-lt"}]


@pytest.mark.parametrize("name", LARGE)
def test_the_large_recipes_run_on_a_stand_in_of_the_same_shape(name: str, quiet: Reporter, tmp_path: Path) -> None:
    """Everything of the recipe but its size: a small timm network, small images, one epoch a stage."""
    from longtail.config.recipes import base_config
    from longtail.config.schema import merge

    recipe = base_config(name, epochs=1)
    small = recipe["model"]["name"].replace("resnet50", "resnet10t").replace("resnet152", "resnet10t")
    trainable = [part.replace("layer4.2", "layer4.0") for part in recipe["model"]["trainable"]]
    config = complete(build(merge(recipe, {
        "data": {"source": "digits", "imbalance_ratio": 20, "image_size": 32, "resize": 36},
        "model": {"name": small, "pretrained": False, "trainable": trainable},
        "stage1": {"batch_size": 256}, "stage2": {"batch_size": 256},
    })))  # fmt: skip
    metrics = start_run(config, tmp_path / "run", quiet)
    assert metrics["test"]["num_images"] == 359
    expected = {"stage1", "stage2"} if recipe["stage2"]["epochs"] else {"stage1"}
    assert set(metrics["stages"]) == expected


def test_places_trains_only_the_last_block_and_the_bottleneck() -> None:
    model = build_model("timm:resnet10t+bottleneck", 3, "cosine")
    set_trainable(model, StageConfig(train="all"), ModelConfig(trainable=["trunk.layer4.0", "bottleneck"]))
    trained = {name.split(".")[1] for name, p in model.backbone.named_parameters() if p.requires_grad}
    prefixes = {name.split(".")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert prefixes == {"trunk", "bottleneck"}
    assert "conv1" not in {n.split(".")[1] for n, p in model.backbone.named_parameters()
                           if p.requires_grad and n.startswith("trunk")}  # fmt: skip
    assert "layer4" in trained
    assert "layer3" not in trained


class Looks(TorchDispatchMode):
    """Counts how often a number of a tensor is fetched by the host, for which it has to wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix", "remix", "cmo"])
def test_a_step_and_an_evaluation_look_at_no_number_on_the_device(mixing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.evaluation.confusion.summarize", lambda *_: {})  # it looks, once all is done
    stage = StageConfig(epochs=1, batch_size=8, mixing=mixing)
    model = build_model("plain-cnn", 3, "linear")
    work = make_stage(stage, cpu(), model)
    counts = ClassCounts([8, 8, 8])
    with Looks() as looks:
        assert torch.zeros(1).item() == 0
        assert looks.count == 1
        train_epoch(work, 0)
        assert looks.count == 3, "whether there was a NaN, and how long was waited, at the end of the epoch"
        evaluate(
            work.engine,
            model,
            work.inputs,
            num_images=24,
            counts=counts,
            groups=counts.groups(),
            scores=lambda logits: logits,
            keep_predictions=True,
        )
    assert looks.count == 3


def test_an_error_leaves_the_mode_of_a_network_as_it_was() -> None:
    model = build_model("plain-cnn", 3, "linear").train()
    with pytest.raises(RuntimeError, match="no"), Engine(cpu()).inference(model):
        raise RuntimeError("no")
    assert model.training


def test_checkpoints_within_an_epoch_are_no_part_of_its_time(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only saving moves: every save takes 1,000 seconds."""
    from longtail.training import experiment as run

    real, late = time.perf_counter, [0.0]

    def saving(*args: Any, **options: Any) -> None:
        late[0] += 1000.0

    monkeypatch.setattr(time, "perf_counter", lambda: real() + late[0])
    monkeypatch.setattr(run, "save_checkpoint", saving)
    metrics = start_run(small_config(epochs=1, training={"checkpoint_steps": 2}), tmp_path / "run", quiet)
    assert metrics["seconds"]["saving"] >= 2000
    assert metrics["seconds"]["stage1"] < 1000


@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cl") is None, reason="torch.compile needs a compiler")
def test_a_compiled_run_ends_where_the_plain_one_does_and_compiles_nothing_within_an_epoch(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress, noise, mixup, a short last batch and the second stage included."""
    from torch._dynamo.utils import counters

    config = small_config("cifar-lt/gcl", epochs=2, training={"precision": "bf16"})
    start_run(config, tmp_path / "plain", quiet)
    config = with_options(config, {"training.compile": True})
    graphs: list[tuple[int, int]] = []

    class Count(Callback):
        before = 0

        def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
            if progress.step == 0:
                self.before = counters["stats"]["unique_graphs"]

        def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
            graphs.append((self.before, counters["stats"]["unique_graphs"]))

    metrics = start_run(config, tmp_path / "compiled", quiet, callbacks=[Count()])
    assert len(graphs) == 3
    assert graphs[0][0] > 0  # compiled before the first epoch ...
    assert all(before == after for before, after in graphs)  # ... and never within one
    assert metrics["seconds"]["compile"] > 0
    plain, compiled = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[key], compiled[key], atol=0.03) for key in plain)


def test_looking_at_the_sums_of_an_epoch() -> None:
    meter = Meter(torch.device("cpu"))
    assert meter.mean_loss is None
    for step, loss in enumerate((1.0, 3.0, float("nan"))):
        meter.add(torch.tensor(loss), torch.tensor(1), 2, step)
        if step == 1:
            meter.look()
    assert meter.mean_loss == 2.0  # as of the look
    assert not meter.has_nan
    meter.look()
    assert meter.has_nan
    assert meter.sums[3].item() == 3  # the third step


def test_every_stage_computes_in_the_precision_of_the_run() -> None:
    """What wraps the network of stage 1 leaves no trace that would keep stage 2 from being wrapped."""
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "linear")
    names, images = set(vars(model)), torch.rand(4, 3, 16, 16)
    engine = Engine(cpu(precision="bf16"))
    for _ in range(2):
        wrapped, _ = engine.prepare(model, torch.optim.SGD(model.parameters()))
        _, features = wrapped(images, return_features=True)
        assert torch.equal(features, features.bfloat16().float())
        engine.release()
        assert set(vars(model)) == names
    assert not torch.equal(model.backbone(images), model.backbone(images).bfloat16().float())


def test_loss_scaling_of_fp16_is_part_of_where_training_stands() -> None:
    engine, other = Engine(cpu()), Engine(cpu())
    assert engine.loss_scaling == {}
    engine.accelerator.scaler, other.accelerator.scaler = (torch.amp.GradScaler("cpu") for _ in range(2))
    engine.accelerator.scaler.scale(torch.ones(()))  # the first use makes its tensors
    engine.accelerator.scaler.update(128.0)
    other.loss_scaling = json.loads(json.dumps(engine.loss_scaling))
    assert other.accelerator.scaler.get_scale() == 128
    other.loss_scaling = {}  # of a run in another precision, or of an older version
    assert other.accelerator.scaler.get_scale() == 128
