"""Checks that every loss passes: adding a loss is one line in CASES."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

from longtail import losses
from longtail.losses import LongTailLoss

COUNTS = [500, 30, 120, 5, 30]
CLASSES, FEATURES, BATCH = len(COUNTS), 7, 6


@dataclass(frozen=True)
class Case:
    """A loss, its options and the progress it is checked at.

    ``plain_margin`` is the margin left on the label where all counts are equal (None: it is no subtraction);
    ``smooth`` says that the gradient is that of the value, which a detached focal factor breaks.
    """

    name: str
    make: Callable[..., LongTailLoss]
    options: dict[str, Any] = field(default_factory=dict)
    progress: float = 0.0
    plain_margin: float | None = 0.0
    smooth: bool = True


def deferred(make: Callable[..., LongTailLoss], counts: list[int], **options: Any) -> LongTailLoss:
    return losses.DeferredReweighting(make(counts, **options), counts)


CASES = [
    Case("cross-entropy", losses.CrossEntropyLoss),
    Case("cross-entropy-scaled", losses.CrossEntropyLoss, {"scale": 20.0}),
    Case("weighted", losses.WeightedLoss),
    Case("class-balanced", losses.ClassBalancedLoss),
    Case("focal", losses.FocalLoss),
    Case("ldam", losses.LDAMLoss, plain_margin=0.5),
    Case("ldam-drw", partial(deferred, losses.LDAMLoss), progress=0.9, plain_margin=0.5),
    Case("kps-ga-drw", partial(deferred, losses.KPSLoss), progress=0.9, plain_margin=0.2),
    Case("balanced-softmax", losses.BalancedSoftmaxLoss),
    Case("logit-adjustment", losses.LogitAdjustedLoss, {"tau": 1.5}),
    Case("kps", losses.KPSLoss, plain_margin=0.2),
    Case("kps-ga", losses.KPSLoss, progress=0.6, plain_margin=0.2),
    Case("kps-never-ga", losses.KPSLoss, {"adjust_gradients_from": None}, progress=1.0, plain_margin=0.2),
    Case("fbl", losses.FBLoss, progress=0.7),
    Case("fbl-linear", losses.FBLoss, {"curriculum": "linear"}, progress=0.7),
    Case("fbl-cosine", losses.FBLoss, {"curriculum": "cosine"}, progress=0.7),
    Case("fbl-sine", losses.FBLoss, {"curriculum": "sine"}, progress=0.7),
    Case("fbl-constant", losses.FBLoss, {"curriculum": "constant"}),
    Case("fbl-reverse", losses.FBLoss, {"curriculum": "reverse"}, progress=0.2),
    Case("gcl", losses.GCLLoss),
    Case("gcl-signed", losses.GCLLoss, {"signed": True}),
    Case("gcl-stage-2", losses.GCLLoss, {"scale": 20.0, "margin": 0.1, "focal_gamma": 1.0}, 0.0, 0.1, smooth=False),
    Case("agcl", losses.AngularGCLLoss, {"noise": 0.5}),
    Case("agcl-signed", losses.AngularGCLLoss, {"noise": 0.5, "signed": True}),
    Case("agcl-margin", losses.AngularGCLLoss, {"noise": 0.25, "margin": 0.1}, plain_margin=None),
    Case("agcl-easy", losses.AngularGCLLoss, {"noise": 0.5, "easy_margin": True}),
    Case("agcl-focal", losses.AngularGCLLoss, {"focal_gamma": 1.0}, smooth=False),
    Case("feature-noise", losses.FeatureNoiseLoss),
    Case("feature-noise-signed", losses.FeatureNoiseLoss, {"signed": True}),
]
# One of each path that probabilities take: compiling all of them would say nothing more.
COMPILED_SOFT = {"cross-entropy", "focal", "ldam-drw", "kps-ga", "fbl", "gcl-stage-2"}
every_loss = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier_of(classes: int) -> nn.Linear:
    layer = nn.Linear(FEATURES, classes, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(draw(classes, FEATURES, seed=5) / 3)
    return layer


def build(case: Case, counts: list[int] = COUNTS, **common: Any) -> LongTailLoss:
    """The loss of a case at its progress, with a classifier where it reads one."""
    loss = case.make(counts, **case.options, **common)
    if loss.needs_classifier:
        loss.attach_classifier(classifier_of(len(counts)))
    loss.progress = case.progress
    return loss


def freeze_noise(loss: LongTailLoss, order: list[int] | None = None, classes: int = CLASSES) -> LongTailLoss:
    """Give the loss the same noise at every call, its classes reordered where it has one number a class."""
    drawing: Any = getattr(loss, "loss", loss)
    width = FEATURES if loss.needs_features else classes
    noise = (draw(4 * BATCH, width, seed=3) / 3).clamp(-1, 1)
    if order is not None and not loss.needs_features:
        noise = noise[:, order]
    drawing.sample_noise = lambda like: noise[: like.shape[0]].to(like.dtype)
    return loss


@dataclass
class Inputs:
    logits: Tensor
    target: Tensor
    features: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        leaf = [values.detach().to(dtype).requires_grad_() for values in (self.logits, self.features)]
        return Inputs(leaf[0], self.target, leaf[1])


def inputs_for(loss: LongTailLoss, batch: int = BATCH, seed: int = 0) -> Inputs:
    raw = draw(batch, loss.num_classes, seed=seed)
    logits = raw.tanh() * 0.95 if loss.head == "cosine" else raw * 2
    target = torch.arange(batch) * 3 % loss.num_classes
    return Inputs(logits.requires_grad_(), target, draw(batch, FEATURES, seed=seed + 1).requires_grad_())


def value_and_gradients(loss: LongTailLoss, inputs: Inputs, target: Tensor | None = None) -> tuple[Tensor, ...]:
    inputs.logits.grad = inputs.features.grad = None
    value = loss(inputs.logits, inputs.target if target is None else target, inputs.features)
    value.backward()
    features = inputs.features.grad if inputs.features.grad is not None else torch.zeros_like(inputs.features)
    assert inputs.logits.grad is not None
    return value.detach(), inputs.logits.grad, features


def assert_finite(results: tuple[Tensor, ...]) -> None:
    assert all(bool(values.isfinite().all()) for values in results)


def probabilities(batch: int = BATCH, classes: int = CLASSES) -> Tensor:
    return (draw(batch, classes, seed=9) * 2).softmax(1)


def has_label_scale(loss: LongTailLoss, inputs: Inputs) -> bool:
    return loss.adjust_logits(inputs.logits, inputs.features).label_scale is not None


def test_every_registered_loss_has_a_case() -> None:
    assert set(losses.LOSSES.values()) <= {case.make for case in CASES}


@every_loss
def test_permuting_the_classes_permutes_the_result(case: Case) -> None:
    order = [3, 1, 4, 0, 2]
    loss = freeze_noise(build(case))
    inputs = inputs_for(loss)
    value, grad, features = value_and_gradients(loss, inputs)
    other = freeze_noise(build(case, [COUNTS[i] for i in order]), order)
    if other.needs_classifier:
        layer = classifier_of(CLASSES)
        layer.weight.data = layer.weight.data[order]
        other.attach_classifier(layer)
    renamed = torch.tensor([order.index(i) for i in range(CLASSES)])[inputs.target]
    moved = Inputs(inputs.logits.detach()[:, order].requires_grad_(), renamed, inputs.features)
    torch.testing.assert_close(value_and_gradients(other, moved), (value, grad[:, order], features))


@every_loss
def test_equal_counts_leave_a_plain_loss(case: Case) -> None:
    loss, more = build(case, [7] * CLASSES), build(case, [900] * CLASSES)
    inputs = inputs_for(loss)
    results = value_and_gradients(loss, inputs)
    torch.testing.assert_close(value_and_gradients(more, inputs), results)
    assert not results[2].any()
    if case.plain_margin is None:
        return
    margin = case.plain_margin * functional.one_hot(inputs.target, CLASSES)
    losses_ = functional.cross_entropy(loss.logit_scale * (inputs.logits - margin), inputs.target, reduction="none")
    factor = (1 - torch.exp(-losses_)) ** loss.focal_gamma
    torch.testing.assert_close(results[0], (factor * losses_).mean().detach(), rtol=1e-6, atol=1e-9)


@every_loss
@pytest.mark.parametrize("counts", [[500, 0, 120, 5, 30], [40, 4], [7, 7]], ids=["zero-count", "two", "two-equal"])
@pytest.mark.parametrize("batch", [1, BATCH])
def test_any_counts_and_batch_are_finite(case: Case, counts: list[int], batch: int) -> None:
    loss = build(case, counts)
    assert_finite(value_and_gradients(loss, inputs_for(loss, batch)))


@every_loss
def test_the_prior_exponent_is_that_of_the_logits(case: Case) -> None:
    """Equal logits come out as ``tau log pi`` where there is neither noise nor a label."""
    loss = build(case)
    if loss.needs_features:
        pytest.skip("the offsets of this loss depend on the features: no class prior describes them")
    drawing: Any = getattr(loss, "loss", loss)
    drawing.sample_noise = torch.zeros_like
    offsets = loss.adjust_logits(torch.zeros(1, CLASSES, dtype=torch.float64), None).logits[0]
    log_prior = torch.tensor(COUNTS, dtype=torch.float64).log()
    centered = log_prior - log_prior.mean()
    assert float((offsets * centered).sum() / centered.square().sum()) == pytest.approx(loss.prior_exponent, abs=1e-6)


@every_loss
def test_zero_images_count_as_one(case: Case) -> None:
    without_images, with_one_image = (freeze_noise(build(case, [500, n, 120, 5, 30])) for n in (0, 1))
    inputs = inputs_for(without_images)
    torch.testing.assert_close(value_and_gradients(without_images, inputs), value_and_gradients(with_one_image, inputs))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_precisions(case: Case, dtype: torch.dtype) -> None:
    loss = freeze_noise(build(case))
    low = inputs_for(loss).to(dtype)
    exact = low.to(torch.float64)
    value, *gradients = value_and_gradients(loss, low)
    expected = value_and_gradients(loss, exact)[0]
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(gradient.dtype == dtype for gradient in gradients)
    assert_finite((value, *gradients))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


@every_loss
def test_autocast_changes_nothing(case: Case) -> None:
    loss = freeze_noise(build(case))
    inputs = inputs_for(loss).to(torch.float32)
    plain = value_and_gradients(loss, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(inputs.logits, inputs.target, inputs.features).detach(), plain[0])


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_inputs_are_left_as_they_are(case: Case, soft: bool) -> None:
    loss = freeze_noise(build(case))
    inputs, untouched = inputs_for(loss), inputs_for(loss)
    target = probabilities() if soft else inputs.target
    noise = loss.sample_noise(inputs.features if loss.needs_features else inputs.logits).clone()
    # Without a gradient, for automatic differentiation would refuse to change a leaf in place.
    logits, features = inputs.logits.detach(), inputs.features.detach()
    loss(logits, target, features)
    assert torch.equal(logits, untouched.logits)
    assert torch.equal(features, untouched.features)
    assert torch.equal(target, probabilities() if soft else untouched.target)
    assert torch.equal(loss.sample_noise(features if loss.needs_features else logits), noise)


@every_loss
def test_one_hot_probabilities_equal_indices(case: Case) -> None:
    loss = freeze_noise(build(case, weight=None))
    inputs = inputs_for(loss)
    hard = loss.weighted_forward(inputs.logits, inputs.target, inputs.features, weight=None)
    one_hot = functional.one_hot(inputs.target, CLASSES).double()
    soft = loss.weighted_forward(inputs.logits, one_hot, inputs.features, weight=None)
    torch.testing.assert_close(soft, hard)
    torch.testing.assert_close(*(torch.autograd.grad(each, inputs.logits)[0] for each in (soft, hard)))


@every_loss
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_probabilities_give_the_expectation_over_labels(case: Case, smoothing: float) -> None:
    target = probabilities()
    loss = freeze_noise(build(case, label_smoothing=smoothing))
    sharp = freeze_noise(build(case, reduction="none"))
    inputs = inputs_for(loss)
    by_label = [sharp(inputs.logits, torch.full((BATCH,), c), inputs.features) for c in range(CLASSES)]
    smooth = target * (1 - smoothing) + smoothing / CLASSES
    expected = (smooth * torch.stack(by_label, dim=1)).sum(1).mean()
    value = loss(inputs.logits, target, inputs.features)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, inputs.logits)[0] for each in (value, expected)))


@every_loss
def test_label_smoothing_of_indices_is_that_of_one_hot_rows(case: Case) -> None:
    loss = freeze_noise(build(case, label_smoothing=0.1))
    inputs = inputs_for(loss)
    one_hot = functional.one_hot(inputs.target, CLASSES).double()
    hard, soft = (
        loss.weighted_forward(inputs.logits, target, inputs.features, weight=None)
        for target in (inputs.target, one_hot)
    )
    torch.testing.assert_close(hard, soft)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_edges_have_finite_gradients(case: Case, dtype: torch.dtype, soft: bool) -> None:
    loss = build(case)
    signs = torch.ones(BATCH, CLASSES) - 2 * (torch.arange(BATCH * CLASSES).reshape(BATCH, CLASSES) % 3 == 0).float()
    signs[0], signs[1], signs[2] = 0.0, 1.0, -1.0
    logits = signs if loss.head == "cosine" else signs * 1e4
    inputs = Inputs(logits, torch.arange(BATCH) % CLASSES, torch.zeros(BATCH, FEATURES)).to(dtype)
    assert_finite(value_and_gradients(loss, inputs, probabilities() if soft else None))


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=lambda case: case.name)
@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck(case: Case, soft: bool) -> None:
    loss = freeze_noise(build(case))
    inputs = inputs_for(loss, batch=3)
    target = probabilities(3) if soft else inputs.target
    assert torch.autograd.gradcheck(lambda z, f: loss(z, target, f), (inputs.logits, inputs.features))


@every_loss
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mean_over_nothing_is_nan_as_in_pytorch_or_zero_on_request(case: Case, smoothing: float) -> None:
    inputs = inputs_for(build(case))
    for options, labels in [({}, torch.full((BATCH,), -100)), ({"weight": [1, 0, 1, 1, 1]}, torch.ones(BATCH).long())]:
        loss = freeze_noise(build(case, label_smoothing=smoothing, **options))
        assert not loss(inputs.logits, labels, inputs.features).isfinite()
        whole = loss(inputs.logits, inputs.target, inputs.features)
        loss.count_empty_as_zero()
        value, *gradients = value_and_gradients(loss, inputs, labels)
        assert [tensor.count_nonzero().item() for tensor in (value, *gradients)] == [0, 0, 0]
        torch.testing.assert_close(loss(inputs.logits, inputs.target, inputs.features), whole)
        assert loss.may_be_empty == bool(options)


@every_loss
def test_plain_logits_are_no_cosines(case: Case) -> None:
    loss = build(case)
    inputs = inputs_for(loss)
    if loss.head == "cosine":
        with pytest.raises(ValueError, match="CosineHead"):
            loss(inputs.logits * 5, inputs.target, inputs.features)
        loss(inputs.logits, inputs.target, inputs.features)
        loss(inputs.logits.bfloat16() / 0.95, inputs.target, inputs.features)
    loss(inputs.logits * 5, inputs.target, inputs.features)  # not looked at again: it would wait for the device


@every_loss
def test_state_dict_round_trip(case: Case) -> None:
    loss = freeze_noise(build(case))
    inputs = inputs_for(loss)
    other = freeze_noise(build(case))
    other.progress = 0.33
    other.load_state_dict(loss.state_dict())
    assert other.progress == pytest.approx(case.progress)
    assert torch.equal(value_and_gradients(other, inputs)[0], value_and_gradients(loss, inputs)[0])
    with pytest.raises(ValueError, match="class counts"):
        build(case, [2, 3, 4, 5, 6]).load_state_dict(loss.state_dict())


@every_loss
def test_copies_are_independent(case: Case) -> None:
    loss = build(case)
    copied = copy.deepcopy(loss)
    copied.progress = 0.05
    assert loss.progress == pytest.approx(case.progress)
    unpickled = pickle.loads(pickle.dumps(loss))
    for each in (copied, unpickled):
        with pytest.raises(ValueError, match="class counts"):
            each.load_state_dict(build(case, [2, 3, 4, 5, 6]).state_dict())


@pytest.mark.parametrize(
    ("case", "soft"),
    [(case, False) for case in CASES] + [(case, True) for case in CASES if case.name in COMPILED_SOFT],
    ids=lambda value: getattr(value, "name", "soft" if value is True else "hard"),
)
def test_compiled_equals_eager_and_progress_does_not_recompile(case: Case, soft: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    loss = freeze_noise(build(case))
    inputs = inputs_for(loss).to(torch.float32)
    # The pairs of a sample and a likely label are as many as the data says: there the graph is cut.
    cut = soft and has_label_scale(loss, inputs)
    compiled = torch.compile(loss, backend=counter, fullgraph=not cut)
    target = probabilities() if soft else inputs.target
    graphs = []
    for progress in (case.progress, 0.1, 0.95):
        loss.progress = progress
        expected = value_and_gradients(loss, inputs, target)
        torch.testing.assert_close(value_and_gradients(compiled, inputs, target), expected)
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[2]
    assert cut or graphs[0] == 1


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_all_tables_move_with_the_module(case: Case, soft: bool) -> None:
    loss = build(case).to("meta")
    if loss.needs_classifier:
        pytest.skip("autocast does not know the meta device")
    loss.progress = 0.5
    inputs = inputs_for(loss)
    logits, features, target = (each.to("meta") for each in (inputs.logits, inputs.features, inputs.target))
    if soft and has_label_scale(loss, Inputs(logits, target, features)):
        pytest.skip("the number of pairs cannot be known without data")
    value = loss(logits, probabilities().to("meta") if soft else target, features)
    assert value.device.type == "meta"
    assert value.shape == ()


@every_loss
def test_noise_is_decided_by_the_seed(case: Case) -> None:
    loss = build(case)
    inputs = inputs_for(loss)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return value_and_gradients(loss, inputs)[0]

    assert torch.equal(run(1), run(1))
    drawn = loss.sample_noise(inputs.features if loss.needs_classifier else inputs.logits)
    assert bool(drawn.any()) == (not torch.equal(run(1), run(2)))


@every_loss
def test_reductions_ignored_labels_and_extra_dimensions(case: Case) -> None:
    loss = freeze_noise(build(case, reduction="none"))
    inputs = inputs_for(loss)
    each = loss(inputs.logits, inputs.target, inputs.features)
    weight = loss.current_weight
    divisor = BATCH if weight is None else weight[inputs.target].sum()
    total = freeze_noise(build(case, reduction="sum"))(inputs.logits, inputs.target, inputs.features)
    mean_loss = freeze_noise(build(case))
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean_loss(inputs.logits, inputs.target, inputs.features), each.sum() / divisor)
    torch.testing.assert_close(mean_loss.mean_divisor(inputs.target).double(), torch.as_tensor(divisor).double())

    fewer = inputs.target.clone()
    fewer[-2:] = -100
    first = mean_loss(inputs.logits[:-2], inputs.target[:-2], inputs.features[:-2])
    torch.testing.assert_close(mean_loss(inputs.logits, fewer, inputs.features), first)
    assert not loss(inputs.logits, fewer, inputs.features)[-2:].any()

    wide = [values.reshape(2, 3, -1).movedim(-1, 1) for values in (inputs.logits, inputs.features)]
    torch.testing.assert_close(loss(wide[0], inputs.target.reshape(2, 3), wide[1]), each.reshape(2, 3))
    torch.testing.assert_close(loss(inputs.logits[0], inputs.target[0], inputs.features[0]), each[0])


@every_loss
def test_class_weights_multiply_the_loss_of_each_label(case: Case) -> None:
    weight = [1.0, 2.0, 0.0, 0.5, 3.0]
    inputs = inputs_for(build(case))
    plain, weighted = (
        freeze_noise(build(case, reduction="none", weight=each))(inputs.logits, inputs.target, inputs.features)
        for each in (None, weight)
    )
    torch.testing.assert_close(weighted, plain * torch.tensor(weight, dtype=torch.float64)[inputs.target])
