"""Candidate networks: pretrained backbones that are worth comparing, with what each costs and what its license asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from longtail.models.image_sizes import has_fixed_size, native_size
from longtail.models.timm import TIMM_PREFIX, has_weights

UNASKED_MEGABYTES: Final = 20
"""What is fetched without a question, for each network."""

_USUAL, _LARGE = 224, 384  # pixels


@dataclass(frozen=True)
class CandidateNetwork:
    """A network of timm whose features are worth trying, and what it costs.

    Attributes:
        name: As :func:`longtail.models.build_backbone` takes it.
        license: License of the weights, as timm names it.
        parameters: Number of parameters without the classifier.
        multiply_adds: Multiplications with an addition for one image of ``native_size``.
        megabytes: Size of the file of weights in millions of bytes, the classifier included.
        native_size: Side of the images in pixels that the weights are made for.
        size_step: Sizes are its multiples: a transformer's patch, or 32, by which a convolutional network shrinks
            an image.
        smallest_size: The smallest side in pixels that is worth a try.
        is_transformer: Whether it takes no other sizes than multiples of ``size_step``.
        asks_for_more: Whether the license asks for more than attribution, so that only users themselves can choose
            the network.

    Example:
        >>> network = CandidateNetwork("timm:vit", "mit", 5_000_000, 1_000_000_000, 20, 224, 16, 96, True)
        >>> network.takes(128), network.takes(130), network.sizes(128)
        (True, False, [96, 112, 128])
    """

    name: str
    license: str
    parameters: int
    multiply_adds: int
    megabytes: float
    native_size: int
    size_step: int
    smallest_size: int
    is_transformer: bool = False
    asks_for_more: bool = False

    def takes(self, size: int) -> bool:
        """Whether the network can be built for images of a side in pixels."""
        return size > 0 and not (self.is_transformer and size % self.size_step)

    def sizes(self, largest: int) -> list[int]:
        """Return the multiples of ``size_step`` from ``smallest_size`` to ``largest``, in pixels, ascending."""
        return list(range(self.smallest_size, largest + 1, self.size_step))

    def multiply_adds_at(self, size: int) -> int:
        """Return multiply-adds for one image of another side, taken to be proportional to its pixels.

        For a transformer below its native size this is an upper bound: attention shrinks faster.

        Example:
            >>> CANDIDATE_NETWORKS[0].multiply_adds_at(112) / CANDIDATE_NETWORKS[0].multiply_adds
            0.25
        """
        return round(self.multiply_adds * (size / self.native_size) ** 2)


def _convolutional(
    name: str, parameters: int, multiply_adds: int, megabytes: float, native_size: int = 224
) -> CandidateNetwork:
    return CandidateNetwork(
        f"{TIMM_PREFIX}{name}", "apache-2.0", parameters, multiply_adds, megabytes, native_size, 32, 96
    )


def _transformer(
    name: str,
    parameters: int,
    multiply_adds: int,
    megabytes: float,
    *,
    native_size: int,
    patch: int,
    own_license: str = "",
) -> CandidateNetwork:
    return CandidateNetwork(
        f"{TIMM_PREFIX}{name}",
        own_license or "apache-2.0",
        parameters,
        multiply_adds,
        megabytes,
        native_size,
        patch,
        -(-96 // patch) * patch,
        is_transformer=True,
        asks_for_more=bool(own_license),
    )


CANDIDATE_NETWORKS: Final = (
    _convolutional("tf_efficientnet_lite0", 3_371_008, 383_907_552, 18.8),
    _convolutional("tf_efficientnet_lite1", 4_135_680, 598_905_232, 21.9, native_size=240),
    _convolutional("tf_efficientnet_lite2", 4_811_072, 858_456_272, 24.6, native_size=260),
    _convolutional("mobilenetv4_conv_small.e2400_r224_in1k", 2_493_024, 184_725_568, 15.2),
    _convolutional("resnet50.a1_in1k", 23_508_032, 4_087_136_256, 102.4),
    _convolutional("convnext_tiny.fb_in22k_ft_in1k", 27_820_128, 4_454_763_264, 114.4),
    _transformer(
        "vit_small_patch16_224.augreg_in21k_ft_in1k", 21_665_664, 4_598_498_304, 88.2, native_size=224, patch=16
    ),
    _transformer("vit_small_patch14_dinov2.lvd142m", 22_056_192, 46_696_739_328, 88.2, native_size=518, patch=14),
    _transformer("vit_small_patch14_reg4_dinov2.lvd142m", 22_057_344, 46_882_828_800, 88.2, native_size=518, patch=14),
    _transformer(
        "vit_small_patch16_dinov3.lvd1689m",
        21_586_944,
        6_245_286_912,
        86.3,
        native_size=256,
        patch=16,
        # Terms of use, a copy of the license with what is passed on, and a mention in publications.
        own_license="dinov3-license",
    ),
)
"""The networks, convolutional ones first. Counted in timm 1.0.31; a test compares them with the installed one."""


def find_candidate(name: str) -> CandidateNetwork | None:
    """Return the candidate of a name, as :func:`longtail.models.build_backbone` takes it, or None.

    Example:
        >>> find_candidate("timm:vit_small_patch14_dinov2.lvd142m").size_step
        14
    """
    return next((network for network in CANDIDATE_NETWORKS if network.name == name), None)


def usual_size(name: str) -> int | None:
    """Return the image size in pixels of a network whose weights are made for more than pays; None for all others.

    DINOv2 was trained at 518 pixels in its last steps, and its frozen features are evaluated at 224 [1]; 518 cost eight
    times as much.

    References:
        [1] Oquab et al., DINOv2: Learning robust visual features without supervision, 2023, section 7.

    Example:
        >>> usual_size("timm:vit_small_patch14_dinov2.lvd142m"), usual_size("timm:resnet18")
        (224, None)
    """
    candidate = find_candidate(name)
    is_large = candidate is not None and candidate.is_transformer and candidate.native_size > _LARGE
    return accepted_size(name, _USUAL) if is_large else None


def accepted_size(name: str, size: int) -> int:
    """Return the largest image size up to another that a network takes, or its smallest; in pixels.

    Args:
        name: As :func:`longtail.models.build_backbone` takes it. A transformer that is not in the table is taken at the
            size of its weights only.
        size: Side of the images in pixels.

    Example:
        >>> accepted_size("timm:vit_small_patch14_dinov2.lvd142m", 128), accepted_size("timm:resnet18", 100)
        (126, 100)
        >>> accepted_size("timm:vit_small_patch14_dinov2.lvd142m", 96)
        98
    """
    candidate = find_candidate(name)
    if candidate is not None:
        return size if candidate.takes(size) else max(candidate.smallest_size, size - size % candidate.size_step)
    bare = name.removeprefix(TIMM_PREFIX)
    is_fixed = name.startswith(TIMM_PREFIX) and has_fixed_size(bare)
    return native_size(bare) if is_fixed else size


def candidate_networks(*, download: bool = False, ask: Callable[[str], bool] | None = None) -> list[CandidateNetwork]:
    """Return the networks that may be compared without being named by the user, in the order of the table.

    Networks whose weights are on this machine, in a package or a cache; with ``download``, also those that can be
    fetched. What this returns can go to :func:`longtail.models.build_backbone` with ``pretrained=True``, which fetches
    weights that are missing. A network whose license asks for more than attribution is never among them.

    A command line passes its option ``--download``, and as ``ask`` a yes-or-no question where it has a terminal, None
    where it has none: then asking for downloads is permission enough.

    Args:
        download: Also return networks that would have to be fetched. Without it, no network is asked.
        ask: Called once, with a question that names all networks of more than :data:`UNASKED_MEGABYTES`; they are left
            out unless it returns True. None does not ask and takes them.

    Example:
        >>> all(has_weights(network.name) for network in candidate_networks())
        True
    """
    permissive = [network for network in CANDIDATE_NETWORKS if not network.asks_for_more]
    chosen = {network for network in permissive if has_weights(network.name)}
    missing = [network for network in permissive if network not in chosen]
    if download and missing and _hub_answers():
        large = [network for network in missing if network.megabytes > UNASKED_MEGABYTES]
        chosen.update(network for network in missing if network not in large)
        if large and (ask is None or ask(_question(large))):
            chosen.update(large)
    return [network for network in permissive if network in chosen]


def may_fetch(name: str, ask: Callable[[str], bool] | None) -> bool:
    """Whether a network can be built without fetching much, or else the user agrees to that.

    Args:
        name: The network.
        ask: Called with a question that names the network; None where nobody can be asked, and nothing is fetched.

    Example:
        >>> may_fetch("resnet32", lambda question: False)
        True
    """
    network = find_candidate(name)
    if network is None or network.megabytes <= UNASKED_MEGABYTES or has_weights(name):
        return True
    return ask is not None and ask(_question([network]))


def _hub_answers() -> bool:
    from longtail.data.sources.huggingface import LONG_PATIENCE, reachable

    return reachable(LONG_PATIENCE)


def _question(networks: list[CandidateNetwork]) -> str:
    names = ", ".join(f"{network.name} ({network.megabytes:.0f} MB)" for network in networks)
    total = sum(network.megabytes for network in networks)
    return f"Fetch pretrained weights from the Hugging Face hub, {total:.0f} MB in all: {names}?"
