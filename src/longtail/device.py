"""Cores, memory, processes and accelerator: what this machine has, and what is fast on it."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import psutil

from longtail.errors import LongtailError

if TYPE_CHECKING:  # PyTorch and NumPy are loaded where they are needed: counting cores does without
    import torch
    from torch import Tensor

# Number of runs of a grid that share this machine: the grid sets it for the processes that train them.
JOBS = "LONGTAIL_JOBS"
_OWN_CGROUPS, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The limit, the usage and the prefix of the parts of cgroups of version 2, whose controller has no name, and version 1.
_MEMORY_FILES = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
# A Library takes its operators with it when it is collected, so what was declared is held here.
_declared: list[torch.library.Library] = []


def cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the limit of its container or job.

    Example:
        >>> cores() >= 1
        True
    """
    process = psutil.Process()
    usable = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1  # macOS has none
    for controllers, folder in _own_cgroups():
        try:
            if controllers:  # version 1
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
        except OSError:
            continue
        if quota not in {"max", "-1"}:
            usable = min(usable, math.ceil(int(quota) / int(period)))
    return max(usable, 1)


def _own_cgroups() -> Iterator[tuple[str, Path]]:
    """Yield the cgroups of this process and those above them, whose limits hold as well, with their controllers.

    In a container its own cgroup is often the root, whatever the path.
    """
    lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines() if _OWN_CGROUPS.is_file() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        for place in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield controllers, _CGROUPS / controllers / str(place).lstrip("/")


def runs_at_once() -> int:
    """Return the number of runs of a grid that share this machine, this one included.

    Example:
        >>> runs_at_once() >= 1
        True
    """
    return _number(JOBS)


def default_workers() -> int:
    """Return the default number of decoding processes: one a core of the share of this process and run.

    Example:
        >>> default_workers() >= 1
        True
    """
    return max(1, cores() // (runs_at_once() * _number("LOCAL_WORLD_SIZE")))  # as torchrun and accelerate set it


def processes() -> int:
    """Return the number of processes that torchrun or accelerate has started for this run; 1 without them.

    Example:
        >>> processes()
        1
    """
    return _number("WORLD_SIZE")


def is_first_process() -> bool:
    """Whether this is the first process of a run on this machine, the one that reports.

    Example:
        >>> is_first_process()
        True
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_main_of_run() -> bool:
    """Whether this is the first process of a run on all of its machines, the one that writes its folder.

    Example:
        >>> is_main_of_run()
        True
    """
    return os.environ.get("RANK", "0") == "0"


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return max(1, int(text)) if text.isdigit() else 1


def forward_batch(device: torch.device, side: int) -> int:
    """Return the batch size that is fastest for a forward pass: one number of pixels, whatever their size.

    On a processor the activations of a network should stay near its caches: 64 images of 32 pixels take three quarters
    of the time that they take as a part of 256, and 10 of 224 pixels half of that as a part of 64.

    Example:
        >>> import torch
        >>> forward_batch(torch.device("cpu"), 224)
        10
    """
    pixels, least = (2**23, 64) if device.type == "cuda" else (2**16, 10)
    return max(least, pixels // side**2)


def named_device(name: torch.device | str) -> torch.device:
    """Return an available device by name; ``auto`` is the accelerator, or the processor if there is none.

    Raises:
        LongtailError: No such device, or not on this machine.

    Example:
        >>> named_device("cpu")
        device(type='cpu')
    """
    import torch

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:  # no such name, not built in, and no name at all
        raise LongtailError(f"device {str(name)!r} is not on this machine: take 'auto' or 'cpu'.") from error


def memory_budget(device: torch.device, gigabytes: float | None = None) -> float:
    """Return the bytes to keep on a device at most: those asked for, else half of the free ones.

    Of a CPU they are the free ones of the host, or of the container or job that this process is in.

    Example:
        >>> import torch
        >>> memory_budget(torch.device("cpu"), 1.5)
        1500000000.0
    """
    import torch

    if gigabytes is not None:
        return gigabytes * 1e9
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    return min(psutil.virtual_memory().available, _left_by_cgroups()) / 2


def _left_by_cgroups() -> float:
    """Return the bytes left below the memory limits of a container or job, infinite without any.

    The files that the system caches count as left, since it drops them where memory is wanted.
    """
    left = math.inf
    for controllers, folder in _own_cgroups():
        if controllers not in _MEMORY_FILES:
            continue
        limit, usage, prefix = _MEMORY_FILES[controllers]
        try:
            most, taken, parts = ((folder / name).read_text() for name in (limit, usage, "memory.stat"))
        except OSError:
            continue
        cached = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", parts, re.MULTILINE)
        left = min(left, float(most.replace("max", "inf")) - int(taken) + sum(map(int, cached)))
    return max(left, 0.0)


def fast_precision(device: str) -> Literal["fp32", "bf16"]:
    """Return bf16 where the hardware multiplies in it (AVX-512 BF16, AMX, tensor cores), else fp32.

    Args:
        device: Name of the training device, or ``auto``.

    Example:
        >>> fast_precision("cpu") in ("fp32", "bf16")
        True
    """
    import torch

    if on_cpu(device):
        has = _multiplies_in_bf16()
    else:
        has = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has else "fp32"


def float64_device(device: torch.device) -> torch.device:
    """Return where float64 of a device is computed: on itself, or on the processor where it has none.

    Apple GPUs have none, nor have some of Intel's.

    Example:
        >>> import torch
        >>> float64_device(torch.device("mps")), float64_device(torch.device("cuda"))
        (device(type='cpu'), device(type='cuda'))
    """
    import torch

    is_missing = device.type == "mps" or (device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64)
    return torch.device("cpu") if is_missing else device


def on_cpu(device: str) -> bool:
    """Whether a device by name is the processor: asked for, or the only one.

    Example:
        >>> on_cpu("cpu")
        True
    """
    import torch

    return device == "cpu" or not torch.accelerator.is_available()


def accelerator_name(device: torch.device) -> str:
    """Return the name of an accelerator; empty for a processor.

    Example:
        >>> import torch
        >>> accelerator_name(torch.device("cpu"))
        ''
    """
    import torch

    if device.type == "cpu":
        return ""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def can_fuse(parameters: Iterable[Tensor]) -> bool:
    """Whether PyTorch has fused optimizers for the devices of these parameters; it has none for shares of them.

    Example:
        >>> import torch
        >>> can_fuse([torch.zeros(1)])
        True
    """
    devices = {"cpu", "cuda", "mps", "xpu"}
    return all(each.device.type in devices and not hasattr(each, "full_tensor") for each in parameters)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed PyTorch's generators in a ``with`` block, and restore their state after it.

    Example:
        >>> import torch
        >>> with seeded(torch.device("cpu"), 0):
        ...     first = torch.rand(())
        >>> with seeded(torch.device("cpu"), 0):
        ...     torch.rand(()) == first
        tensor(True)
    """
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def step_seed(*words: int) -> int:
    """Mix seed words into one 63-bit seed; the same words give the same seed on every machine.

    Example:
        >>> step_seed(0, 1, 2) == step_seed(0, 1, 2), step_seed(0, 1, 2) == step_seed(0, 2, 1)
        (True, False)
    """
    import numpy as np

    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def hardware(device: torch.device) -> dict[str, str | int]:
    """Return the processor, its cores and the accelerator a run used.

    Example:
        >>> import torch
        >>> hardware(torch.device("cpu"))["device"]
        'cpu'
    """
    name = accelerator_name(device) or device.type
    return {"device": name, "processor": _processor(), "cores": cores(), "system": platform.system()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    name = re.search(r"^model name\s*:\s*(.+)", text, re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def prepare_torchvision() -> bool:
    """Import torchvision, next to a build of torch too that its compiled half does not fit.

    ``timm`` and ``torchmetrics`` import torchvision on their way in. Its Python half describes the operators ``nms``
    and ``qnms`` to torch, and those exist only once its compiled half is loaded. The wheel of torchvision on PyPI is
    built for CUDA; with a CPU build of torch the compiled half cannot load, and the import stops with "operator
    torchvision::nms does not exist". Nothing here uses these operators, so naming their signatures is enough.

    Call this before importing timm or torchmetrics. It may be called any number of times.

    Returns:
        Whether the signatures were declared: False where torchvision is absent, already imported, or whole.

    Example:
        >>> _ = prepare_torchvision()
        >>> prepare_torchvision()  # the second call finds nothing left to do
        False
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return False
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            signature = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(signature)  # type: ignore[no-untyped-call]
        _declared.append(library)
        return True
    return False


# The private names of PyTorch that have no public counterpart stand in these three functions alone.


def _multiplies_in_bf16() -> bool:
    """Whether the processor has instructions for bf16: no public function tells."""
    import torch

    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def standard_gamma(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a number from each Gamma distribution of rate 1: :mod:`torch.distributions` takes no generator.

    Example:
        >>> import torch
        >>> standard_gamma(torch.ones(2), torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    import torch

    return torch._standard_gamma(concentration, generator=generator)


def compile_mode_options(mode: str) -> dict[str, Any]:
    """Return the options of a mode of ``torch.compile``, whose argument ``mode`` excludes further options.

    Example:
        >>> compile_mode_options("default")
        {}
    """
    import torch._inductor

    return torch._inductor.list_mode_options(mode, False)
