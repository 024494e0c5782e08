"""LongTailClassifier: training against a long tail as a scikit-learn estimator, on features or on images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt, Lt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from longtail.config.build import check_value
from longtail.config.options import Count, EngineName, Fit, Metric, WholeNumber
from longtail.config.schema import DataConfig, TrainingConfig
from longtail.config.stage import AUTO_LOSS, LossConfig, OptimizerConfig, ScheduleConfig, StageConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts, FloatArray, IntArray
from longtail.data.dataset import Split
from longtail.data.loading.loaders import SinglePassLoader, count_batches
from longtail.data.loading.workers import Decoder, stack_images
from longtail.data.samplers import SAMPLERS, build_sampler
from longtail.data.transforms.augmentation import Augmentation, BatchTransform
from longtail.device import named_device, seeded
from longtail.errors import LongtailError, first_line, nearest
from longtail.evaluation.posthoc import Adjustment, prior_shares
from longtail.files import write_atomically
from longtail.integrations import sklearn_model
from longtail.losses import build_loss, loss_class
from longtail.models.heads import StandardizedHead
from longtail.models.inference_engine import compile_backbone
from longtail.models.model import with_head
from longtail.run.layout import MODEL_FILE, WEIGHTS_FILE
from longtail.run.model_files import ModelInfo, ModelSpec, load_model, save_model, save_weights
from longtail.run.portfolio import Portfolio, describe_portfolio
from longtail.training.backbone_pass import BATCH, backbone_pass
from longtail.training.candidates import adjust_head, classifier_of, stages_of, usual_candidate, usual_schedule
from longtail.training.cross_validation import Samples, can_choose
from longtail.training.engine import LocalEngine
from longtail.training.forward_pass import ImageInputs, Inputs
from longtail.training.frozen_features import Classifier, FeatureStore, StoredFeatures
from longtail.training.loop import StageRun, train_epoch
from longtail.training.optimizers import make_optimizer
from longtail.training.portfolio import LONGEST_CHOICE, choose_classifier, seconds_to_choose, steps_to_choose
from longtail.training.stages import assumed_prior, fit_loss, make_mixer
from longtail.version import __version__

_HEAD_LR, _NETWORK_LR = 1e-2, 1e-3
_EPOCHS, _BATCH, _DECAY = 50, 64, 1e-3
_USUAL_LOSS = "logit-adjustment"
_AT_ONCE = 1024  # rows whose probabilities are computed together
_STORED = 64  # images whose features are kept on disk: a file for every few would be slow to look through
_LAST_SEED = 2**31 - 1
_Amount = Annotated[float, Ge(0), Lt(math.inf)]
# Parameters that are checked by their annotations.
_TYPED = (
    "head",
    "engine",
    "augmentation",
    "image_size",
    "image_fit",
    "epochs",
    "retrain_epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "mixup",
    "metric",
    "verbose",
)


class LongTailClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier for long-tailed data with ``fit``, ``predict``, ``predict_proba`` and ``score``.

    Without ``backbone`` it takes features: a float array (N, D), standardized inside, so that their offset and unit do
    not matter. With one it takes images: a list
    of paths, Pillow images or uint8 arrays, or one uint8 array (N, H, W, 3) or (N, H, W).

    Stage 1 trains on every row alike, stage 2 (``retrain_epochs``) only the classifier, on class-balanced draws. The
    optimizer is AdamW (Adam where ``auto`` chooses on few features), its rate falls along a cosine. Results repeat with
    ``random_state``, and torch's own generators are left as they were.

    Args:
        loss: A name of ``longtail.losses.LOSSES``; or ``auto``, which chooses loss, regularization and the strength of
            logit adjustment by cross-validation on the training rows, see
            :func:`longtail.training.portfolio.choose_classifier`. Where too few rows can be held out, and where a
            choice would take more than half an hour, it takes the first of the candidates: class weights on at most 256
            features, else logit adjustment; LDAM with deferred weights where ``head`` is ``cosine``; cross-entropy
            where ``metric`` is ``accuracy``. Where the network is trained, and where ``loss_options``,
            ``retrain_epochs``, ``lr``, ``weight_decay`` or ``mixup`` say how to train, ``auto`` is
            ``logit-adjustment``.
        loss_options: Its options, as for :func:`longtail.losses.build_loss`.
        head: ``linear``, ``cosine``, or ``auto`` for the one that the loss is defined on.
        backbone: A network as :func:`longtail.models.build_backbone` takes it, or the folder of a finished run.
        pretrained: Start the network from its published weights; not for a run's folder, which has its own.
        train_backbone: Train the network too. Otherwise it is frozen, and its features are computed once.
        image_size: Side of the network's input in pixels; the network's own when not given.
        image_fit: How an image that is not square becomes the input: ``crop`` keeps its center, ``pad`` keeps all of it
            and fills the rest with the color of its edges, ``stretch`` distorts it. When not given, as the run named as
            backbone does, or as the network's weights ask for, mostly ``crop``.
        augmentation: Changes to training images, where the network is trained.
        epochs: Epochs of stage 1; when not given, 50, or what is usual for the candidates of ``auto``.
        retrain_epochs: Epochs of stage 2; 0 leaves it out.
        retrain_sampler: Sampling strategy of stage 2, also of one that ``auto`` takes (it judges class-balanced draws).
        batch_size: Rows per step; when not given, 64, or what is usual for the candidates of ``auto``.
        lr: Learning rate; when not given, what ``auto`` chooses, 0.01 for a classifier on features, or 0.001 where the
            network trains.
        weight_decay: Decoupled weight decay; when not given, 0.001, or what ``auto`` chooses.
        mixup: Alpha of mixup in both stages; 0 mixes nothing.
        metric: What ``auto`` compares: ``balanced`` accuracy, ``accuracy``, ``macro-f1`` or ``worst-group``.
        prior: The mix of classes to expect at prediction: ``"train"``, ``"uniform"``, or positive shares in the order
            of ``classes_``. When not given, ``assumed_prior_``. May be set after fitting.
        device: A torch device, or ``auto`` for an accelerator where there is one.
        engine: What runs a network that is not trained: ``torch``, or ``openvino``, on CPUs; ``auto`` takes OpenVINO if
            it is installed, for many images.
        random_state: Seed, or a ``numpy.random.RandomState``.
        verbose: Write to standard error what runs the network and what ``auto`` chooses, with progress bars.

    Attributes:
        classes_: The labels, sorted, shape (C,).
        class_counts_: :class:`~longtail.ClassCounts` of the training data.
        assumed_prior_: ``"train"`` or ``"uniform"``: the mix of classes under which the model's own probabilities hold,
            see :func:`longtail.training.stages.assumed_prior`.
        model_: The trained :class:`~longtail.models.LongTailModel`.
        portfolio_: What ``auto`` has tried and chosen, a :class:`longtail.run.portfolio.Portfolio`; None where nothing
            was chosen, and for a classifier that was loaded.
        n_features_in_: D, on features only.
        feature_names_in_: Names of the features (D,), where they came as a table whose column names are all text.

    Raises:
        LongtailError: A wrong name, option or image, or images without weights to see them with.
        TypeError: A loss or backbone that is not a name, or images that are not a sequence.
        ValueError: Data that scikit-learn refuses.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = LongTailClassifier(batch_size=16, random_state=0).fit(X[:110], y[:110])  # 50, 50, 10
        >>> classifier.class_counts_.counts, classifier.score(X, y) > 0.8
        ((50, 50, 10), True)
    """

    def __init__(
        self,
        *,
        loss: str = "auto",
        loss_options: Mapping[str, Any] | None = None,
        head: Literal["auto", "linear", "cosine"] = "auto",
        backbone: str | Path | None = None,
        pretrained: bool = True,
        train_backbone: bool = False,
        image_size: Count | None = None,
        image_fit: Fit | None = None,
        augmentation: Augmentation = "none",
        epochs: Count | None = None,
        retrain_epochs: WholeNumber = 0,
        retrain_sampler: str = "class-balanced",
        batch_size: Count | None = None,
        lr: Annotated[float, Gt(0), Lt(math.inf)] | None = None,
        weight_decay: _Amount | None = None,
        mixup: _Amount = 0.0,
        metric: Metric = "balanced",
        prior: str | Sequence[float] | None = None,
        device: str = "auto",
        engine: EngineName = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.loss = loss
        self.loss_options = loss_options
        self.head = head
        self.backbone = backbone
        self.pretrained = pretrained
        self.train_backbone = train_backbone
        self.image_size = image_size
        self.image_fit = image_fit
        self.augmentation = augmentation
        self.epochs = epochs
        self.retrain_epochs = retrain_epochs
        self.retrain_sampler = retrain_sampler
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.mixup = mixup
        self.metric = metric
        self.prior = prior
        self.device = device
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803  (scikit-learn's name)
        """Train on rows ``X`` (features or images, see the class) and their labels ``y`` (N,), of any kind.

        Args:
            X: Features (N, D), or N images.
            y: Labels, shape (N,).
            groups: Names or numbers of what the rows are of, such as a video or a patient, shape (N,): in the
                cross-validation of ``auto``, rows of one group stay together.

        If this fails or is interrupted, what an earlier fit has learned is gone too: ``predict`` says that the
        classifier is not fitted.
        """
        self._check_options()
        try:
            rows, labels = self._check_training(X, y)
            units = None
            if groups is not None:
                check_consistent_length(labels, groups)
                units = np.unique(column_or_1d(groups), return_inverse=True)[1]
            seed = int(check_random_state(self.random_state).randint(_LAST_SEED))
            device = named_device(self.device)
            with seeded(device, seed):  # weights, dropout and the noise of losses
                self._train(rows, labels, units, device, seed)
        except BaseException:  # Ctrl-C too: it would predict by half of what it was to learn
            for name in [name for name in vars(self) if name.endswith("_")]:
                delattr(self, name)
            raise
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the likeliest label of each row, shape (N,)."""
        chances = self.predict_proba(X)  # first, for it says what is missing
        return np.asarray(self.classes_[chances.argmax(axis=1)])

    def predict_proba(self, X: Any) -> FloatArray:  # noqa: N803
        """Return the probability of each class, float64 (N, C) in the order of ``classes_``, under the chosen prior."""
        check_is_fitted(self)
        if self.backbone is None:
            sklearn_model.refuse_images(X)
            rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32], order="C")
        else:
            rows = sklearn_model.require_images(X)
        self._move(named_device(self.device))
        with torch.inference_mode():
            parts = torch.split(self._features(rows), _AT_ONCE)
            logits = torch.cat([self.model_.head(features) for features in parts]).cpu().double()
        scores = self.adjustment().apply(logits)
        return np.asarray(scores.softmax(dim=1).numpy(), dtype=np.float64)

    def balanced_score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the mean recall of the classes in ``y``; accuracy, which ``score`` returns, hides the tail."""
        return float(balanced_accuracy_score(y, self.predict(X)))

    def adjustment(self) -> Adjustment:
        """Return the adjustment of the logits before softmax: the scale of the loss, and the shift to ``prior``."""
        check_is_fitted(self)
        size, assumed = len(self.classes_), prior_shares(self.assumed_prior_, self.class_counts_)
        wanted = assumed if self.prior is None else self._shares(self.prior)
        shift = np.log(wanted) - np.log(assumed)
        expected = self.assumed_prior_ if self.prior is None else tuple(map(float, wanted))
        return Adjustment((self.logit_scale_,) * size, tuple(map(float, shift)), prior=expected)

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier into a folder: ``model.safetensors`` and ``classifier.json``, nothing pickled.

        A classifier of images also gets ``model.json``: ``longtail predict FOLDER IMAGES`` works on it.

        Raises:
            LongtailError: Labels or parameters that JSON cannot hold, or files that cannot be written.
        """
        check_is_fitted(self)
        folder, labels = Path(folder), self.classes_
        if labels.dtype == object and all(isinstance(label, str) for label in labels):
            labels = labels.astype(str)
        if labels.dtype.kind not in sklearn_model.LABEL_KINDS:
            raise LongtailError(f"labels of type {labels.dtype} cannot be saved: use text or numbers as labels.")
        stored = sklearn_model.StoredClassifier(
            format_version=sklearn_model.FORMAT_VERSION,
            parameters=self.get_params(),
            classes=labels.tolist(),
            label_type=labels.dtype.str,
            counts=self.class_counts_.counts,
            logit_scale=self.logit_scale_,
            assumed_prior=self.assumed_prior_,
            head=self.model_.head_name,
            n_features_in=getattr(self, "n_features_in_", None),
            feature_names_in=tuple(getattr(self, "feature_names_in_", ())) or None,
        ).to_json()
        if self.preprocessing_ is None:
            save_weights(self.model_, folder)
        else:
            info = ModelInfo(
                model=ModelSpec(self.model_.name, self.model_.head_name),
                classes=self.class_counts_.names,
                counts=self.class_counts_.counts,
                preprocessing=self.preprocessing_,
                logit_scale=self.logit_scale_,
                adjustment=None if self.prior is None else self.adjustment(),
                prior=self.assumed_prior_,
                versions={"longtail": __version__},
            )
            save_model(self.model_, info, folder)
        write_atomically(folder / sklearn_model.FILE_NAME, stored)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in it can run code.

        Raises:
            LongtailError: A file is missing, damaged, or not of this class.
        """
        path = Path(folder) / sklearn_model.FILE_NAME
        stored = sklearn_model.read_stored(path)
        result = cls()
        try:
            result.set_params(**stored.parameters)._check_options()
            result.classes_ = np.array(stored.classes, dtype=stored.label_type)
            result.class_counts_ = ClassCounts(stored.counts, [str(label) for label in result.classes_])
            if (result.backbone is None) != (stored.n_features_in is not None):
                raise ValueError("'n_features_in' does not fit 'backbone'")
            names = stored.feature_names_in
            if names is not None and len(names) != stored.n_features_in:
                raise ValueError("'feature_names_in' does not fit 'n_features_in'")
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise LongtailError(f"{path} is damaged ({first_line(error)}): save the classifier again.") from error
        result.logit_scale_, result.assumed_prior_ = stored.logit_scale, stored.assumed_prior
        result.portfolio_ = None
        if stored.n_features_in is not None:
            result.n_features_in_, result.preprocessing_ = stored.n_features_in, None
            if names is not None:  # scikit-learn compares them with those of a table
                result.feature_names_in_ = np.array(names, dtype=object)
            result.model_ = sklearn_model.load_features_model(path.with_name(WEIGHTS_FILE), stored)
            return result
        result.model_, info = load_model(folder)
        result.preprocessing_ = info.preprocessing
        if info.classes != result.class_counts_.names:
            raise LongtailError(f"{path} names other classes than {MODEL_FILE}: save the classifier again.")
        return result

    def __getstate__(self) -> Any:
        """Move the model to the CPU first: a pickle of one that predicted on a GPU could not be loaded without one."""
        if hasattr(self, "model_"):
            self.model_.cpu()
        return super().__getstate__()

    def _check_options(self) -> None:
        if not isinstance(self.loss, str):
            raise TypeError(
                f"loss is a name of longtail.losses.LOSSES, not a {type(self.loss).__name__}: give its options as "
                "loss_options."
            )
        if self.loss != AUTO_LOSS:
            loss_class(self.loss)
        if not isinstance(self.loss_options, Mapping | None):
            raise TypeError(f"loss_options is a mapping of names to values or None, not {self.loss_options!r}.")
        sklearn_model.check_backbone(self.backbone)
        if self.retrain_sampler not in SAMPLERS:
            hint = nearest(str(self.retrain_sampler), SAMPLERS)
            raise LongtailError(f"retrain_sampler is unknown, {self.retrain_sampler!r}.{hint}")
        types = get_type_hints(LongTailClassifier.__init__, include_extras=True)
        for name in _TYPED:
            value = getattr(self, name)
            plain = value.item() if isinstance(value, np.generic) else value
            check_value(plain if isinstance(plain, int | float | str | None) else repr(plain), types[name], name)

    def _check_training(self, X: Any, y: Any) -> tuple[Any, Tensor]:  # noqa: N803
        """The rows, and the label of each as a class index, int64 (N,); learns the classes on the way."""
        if self.backbone is None:
            sklearn_model.refuse_images(X)
            rows, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        else:
            rows, y = sklearn_model.require_images(X), column_or_1d(y, warn=True)
            for of_features in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
                self.__dict__.pop(of_features, None)
            if len(rows) != len(y):
                raise LongtailError(f"{len(rows)} images do not fit {len(y)} labels: give one label an image.")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise LongtailError("these labels hold 1 class: a classifier needs at least 2.")
        self.class_counts_ = ClassCounts(np.bincount(labels), [str(label) for label in self.classes_])
        if self.prior is not None:
            self._shares(self.prior)  # an invalid prior is refused before training
        return rows, torch.from_numpy(labels.astype(np.int64))

    def _train(self, rows: Any, labels: Tensor, units: IntArray | None, device: torch.device, seed: int) -> None:
        counts, chooses = self.class_counts_, self._leaves_open()
        network = partial(
            sklearn_model.build_network,
            self.backbone,
            rows,
            len(self.classes_),
            pretrained=self.pretrained,
            image_size=self.image_size,
            image_fit=self.image_fit,
            trained=self.train_backbone,
        )
        self.portfolio_: Portfolio | None = None
        features = None
        if chooses:
            self.model_, self.preprocessing_ = network("linear")
            self._move(device)
            features = self._features(rows)
            head, steps = self._choose(features, labels, units, seed)
            self.model_ = with_head(
                self.model_.backbone, len(self.classes_), f"standardized-{head}", name=self.model_.name
            )
        else:
            steps = self._given_steps()
            first = build_loss(steps[0].loss.name, counts, steps[0].loss.options)
            head = first.head if self.head == "auto" else self.head
            if first.head == "cosine" and head != "cosine":
                raise LongtailError(f"the loss {self.loss!r} is defined on a cosine classifier: leave head at 'auto'.")
            self.model_, self.preprocessing_ = network(head)
        self._move(device)
        for step, inputs in self._stages(rows, labels, steps, features):
            self._run_stage(step, inputs, labels, seed)
        last = steps[-1]
        tau = 0.0 if self.portfolio_ is None else self.portfolio_.choice.tau
        if tau:
            adjust_head(self.model_, tau, counts, self.logit_scale_)
        self.assumed_prior_ = assumed_prior(last, counts, tau=tau)
        self.model_ = self.model_.with_folded_head().cpu().eval()

    def _leaves_open(self) -> bool:
        """Whether the classifier is to be chosen: nothing that a choice would override was given."""
        given = self.loss_options or self.retrain_epochs or self.mixup or self.lr is not None
        return self.loss == AUTO_LOSS and not (self.train_backbone or given or self.weight_decay is not None)

    def _choose(
        self, features: Tensor, labels: Tensor, units: IntArray | None, seed: int
    ) -> tuple[str, list[StageConfig]]:
        """Choose a classifier on the features of the training rows: its head, and the stages that train it."""
        counts, (images, size), reporter = self.class_counts_, features.shape, self._reporter()
        given = (None if value is None else int(value) for value in (self.epochs, self.batch_size))
        epochs, batch_size = usual_schedule(size, images, *given)
        seconds = seconds_to_choose(images, size, counts.num_classes, self.head, epochs=epochs, batch_size=batch_size)
        if seconds > LONGEST_CHOICE or not can_choose(labels.numpy(), counts, units, seed):
            usual = usual_candidate(size, images, self.head, self.metric)
            return usual.plan.head, stages_of(usual, epochs, batch_size)
        with reporter.bar("choosing a classifier", steps_to_choose(images, epochs, batch_size, self.head)) as bar:
            self.portfolio_ = choose_classifier(
                Samples(features.cpu(), labels, counts, counts.groups(), self.metric, units, seed),
                epochs=epochs,
                batch_size=batch_size,
                head=self.head,
                tick=bar.tick,
            )
        for line in describe_portfolio(self.portfolio_, option="metric"):
            reporter.say(line)
        chosen = classifier_of(self.portfolio_, size, images, self.head)
        first, *later = stages_of(chosen, epochs, batch_size)
        return chosen.plan.head, [first, *(replace(each, sampler=self.retrain_sampler) for each in later)]

    def _given_steps(self) -> list[StageConfig]:
        """Return the stages where the arguments say how to train."""
        rate = _NETWORK_LR if self.train_backbone else _HEAD_LR
        first = StageConfig(
            epochs=int(self.epochs or _EPOCHS),
            batch_size=int(self.batch_size or _BATCH),
            loss=LossConfig(_USUAL_LOSS if self.loss == AUTO_LOSS else self.loss, dict(self.loss_options or {})),
            optimizer=OptimizerConfig("adamw", lr=rate, weight_decay=_DECAY),
        )
        steps = [first]
        if self.retrain_epochs:
            second = replace(first, optimizer=replace(first.optimizer, lr=self.lr or _HEAD_LR))
            steps += [replace(second, epochs=int(self.retrain_epochs), sampler=self.retrain_sampler)]
        given: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        given = {name: value for name, value in given.items() if value is not None}
        return [replace(stage, optimizer=replace(stage.optimizer, **given)) for stage in steps]

    def _run_stage(self, step: StageConfig, inputs: tuple[nn.Module, Inputs[Any]], labels: Tensor, seed: int) -> None:
        network, images = inputs
        device, counts, lr = next(network.parameters()).device, self.class_counts_, step.optimizer.lr
        loss = build_loss(step.loss.name, counts, step.loss.options).to(device)
        fit_loss(loss, self.model_.head)
        stage = StageRun(
            engine=LocalEngine(device),
            model=network,
            network=network,
            loss=loss,
            criterion=loss,
            optimizer=make_optimizer(step.optimizer, network),
            inputs=images,
            sampler=build_sampler(step.sampler, labels, counts, seed=seed),
            batch_size=step.batch_size,
            epochs=step.epochs,
            learning_rate=partial(ScheduleConfig("cosine").learning_rate, lr, epochs=step.epochs),
            seed=(seed,),
            mixer=make_mixer("mixup" if self.mixup else "none", self.mixup, counts),
            remedy=f"take a lower lr than {lr:g}",
        )
        with self._reporter().bar("epochs", step.epochs) as bar:
            for epoch in range(step.epochs):
                train_epoch(stage, epoch)
                bar.tick()
        loss.progress = 1.0
        self.logit_scale_ = loss.logit_scale

    def _stages(
        self, rows: Any, labels: Tensor, steps: Sequence[StageConfig], features: Tensor | None
    ) -> Iterator[tuple[StageConfig, tuple[nn.Module, Inputs[Any]]]]:
        """Yield each stage with what it trains and its inputs, once the one before is trained.

        Stage 1 goes through the network or, where that is frozen, is trained on its features as stage 2 is.
        """
        looks, device = self.preprocessing_, next(self.model_.head.parameters()).device
        if self.train_backbone and looks is not None:
            change = BatchTransform(looks.mean, looks.std, augmentation=self.augmentation, size=looks.size)
            images = ImageInputs(sklearn_model.HostLoader(stack_images(rows, looks.square), labels, device), change)
            yield steps[0], (self.model_, images)
            steps = steps[1:]
        if steps:
            stored = StoredFeatures((self._features(rows) if features is None else features)[None], labels.to(device))
            if isinstance(self.model_.head, StandardizedHead):
                self.model_.head.start_from(stored.features[0], stored.labels)
            for step in steps:
                yield step, (Classifier(self.model_), stored)

    def _move(self, device: torch.device) -> None:
        """Move the model to a device, but not `Standardize`: it needs float64, which not every device has."""
        (self.model_.head if self.preprocessing_ is None else self.model_).to(device)

    def _features(self, rows: Any) -> Tensor:
        """Return the input of the classifier (N, D) on its device: from disk for image files of earlier calls."""
        model, look = self.model_.eval(), self.preprocessing_
        device = next(model.head.parameters()).device
        if look is None:
            with torch.no_grad():
                return cast("Tensor", model.backbone(torch.as_tensor(rows))).to(device)
        config = TrainingConfig(precision="fp32", channels_last=False, engine=self.engine)
        engine, reporter = LocalEngine(device, config), self._reporter()
        transform = BatchTransform(look.mean, look.std)
        if not all(isinstance(row, str | os.PathLike) for row in rows):
            images = ImageInputs(sklearn_model.MemoryLoader(rows, look.square, device), transform)
            is_kept = not self.train_backbone
            network = compile_backbone(
                model, look, images=len(rows), engine=self.engine, store=is_kept, say=reporter.say
            )
            with reporter.bar("features", count_batches(len(rows), BATCH)) as bar:
                return backbone_pass(engine, network, images, torch.arange(len(rows)), tick=bar.tick)[0]
        paths = [os.path.abspath(path) for path in rows]  # noqa: PTH100 - a thousand of them, as they were written
        decoder = Decoder(Split.from_files(paths, np.zeros(len(paths), np.int64)), look.square)
        is_kept = not self.train_backbone and len(paths) >= _STORED
        store = FeatureStore(
            engine=engine,
            model=model,
            inputs={"images": ImageInputs(SinglePassLoader(decoder, device), transform)},
            decoders={"images": decoder},
            reporter=reporter,
            seconds={"features": 0.0},
            data=DataConfig(source=sklearn_model.common_folder(paths), cache=is_kept),
            fixed=is_kept,
        )
        return store.plain("images").features[0]

    def _reporter(self) -> Reporter:
        return Reporter(quiet=not self.verbose)

    def _shares(self, prior: str | Sequence[float]) -> FloatArray:
        if isinstance(prior, str):
            if prior not in ("train", "uniform"):
                raise LongtailError(f"prior is 'train', 'uniform' or shares, not {prior!r}.")
            return prior_shares("train" if prior == "train" else "uniform", self.class_counts_)
        try:
            shares = np.asarray(prior, dtype=np.float64)
        except (TypeError, ValueError):
            shares = np.empty(0)  # no numbers, or not in a row
        if shares.shape != self.classes_.shape or not np.all(np.isfinite(shares) & (shares > 0)):
            raise LongtailError(f"prior takes {len(self.classes_)} positive shares in the order of classes_: {prior}.")
        return prior_shares(tuple(shares.tolist()), self.class_counts_)
