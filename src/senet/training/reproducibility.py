"""What decides how the sums of a run are rounded, in addition to its recipe: versions, hardware, backends, switches.

A run resumes bitwise-identically if none of it has changed; a checkpoint therefore records it, and a change is
reported.
"""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.fused import fused_by, is_plain
from senet.nn.fused.backends import enabled, is_worthwhile
from senet.recipes.recipe import Recipe
from senet.tasks import get_task
from senet.training.dry_run import shapes_of_one_image
from senet.version import __version__

__all__ = ["fused_passes", "rounding"]

# Packages that compute part of a run's result: decoding and resizing of images; augmentation, mixing, optimizers.
_PACKAGES = ("pillow", "timm", "torchvision", "numpy")
# Environment variables that select other kernels in the libraries that PyTorch uses.
_VARIABLES = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "MKL_DYNAMIC", "NVIDIA_TF32_OVERRIDE"),
    *("CUBLAS_WORKSPACE_CONFIG", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT"),
)


def rounding(model: nn.Module, recipe: Recipe, batch: int, processes: int = 1) -> dict[str, Any]:
    """Return what decides how the sums of a run are rounded, as values of JSON.

    Args:
        model: the network to train, on its device.
        recipe: of the run.
        batch: images of a step, of all processes together.
        processes: that share it.

    Returns:
        torch, threads and processes; fused, see `fused_passes`; the versions of senet and other packages; device, its
        name and instruction set; the switches of PyTorch that select kernels; and environment, the variables that
        select kernels of libraries.
    """
    device = next(model.parameters()).device
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "fused": fused_passes(model, recipe, batch, processes),
        "senet": __version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": _device_name(device),
        **_switches(device),
        "environment": " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ),
    }


def fused_passes(model: nn.Module, recipe: Recipe, batch: int, processes: int = 1) -> str:
    """Return how batch norm with SE is computed in the training steps of a run, see `senet.set_fused`.

    "auto" fuses only large maps, so its effect depends on the network, the batch and the image size: one image goes
    through the network, in evaluation mode, to find the sizes of its maps.

    Args:
        model, recipe, batch, processes: as for `rounding`.

    Returns:
        "off", "triton" and its version, "inductor", "aten" or "compiled" (as part of a compiled network), followed by
        the number of batch norms with SE that are fused, if not all are.
    """
    model = get_task(recipe.task).trunk(model)
    modules = dict(model.named_modules())
    norms = [name for name, module in modules.items() if isinstance(module, SEBatchNorm) and is_plain(module.se)]
    report: Any = getattr(model, "fuse_report", None)
    norms += [] if report is None else [row.norm for row in report.fused]
    if not norms or not enabled() or recipe.train_only == "se":  # which uses running statistics, and fuses nothing
        return "off"
    if recipe.compile:
        return "compiled"
    device = next(model.parameters()).device
    images = max(1, batch // (recipe.accumulate * processes))
    # "auto" depends on the size of a map; every other choice, and Triton's kernels, fuse maps of any size.
    large = norms if is_worthwhile(1, device) else _large(model, norms, recipe, images)
    if not large or device.type not in ("cpu", "cuda"):
        return "off"
    how = fused_by(device)
    if how == "triton":  # whose versions compile the same kernels differently
        how = f"{how} {importlib.metadata.version('triton')}"
    return how if len(large) == len(norms) else f"{how}, {len(large)} of {len(norms)} batch norms"


def _large(model: nn.Module, norms: list[str], recipe: Recipe, images: int) -> list[str]:
    """Return the batch norms whose maps are large enough to be fused, in a step of a number of images."""
    shapes = shapes_of_one_image(model, norms, recipe)
    device = next(model.parameters()).device
    return [name for name, shape in shapes.items() if is_worthwhile(images * shape.numel(), device)]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        cudnn: Any = torch.backends.cudnn
        return f"{torch.cuda.get_device_name(device)}, cuDNN {cudnn.version()}"
    if device.type != "cpu":
        return device.type
    # The instruction set selects kernels; MKL and oneDNN also select them by the processor.
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    """Return the name of the processor, as far as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _switches(device: torch.device) -> dict[str, Any]:
    """Return the switches of PyTorch that select kernels, by a readable name."""
    backends: Any = torch.backends
    found: dict[str, Any] = {"deterministic algorithms": torch.are_deterministic_algorithms_enabled()}
    if device.type == "cuda":
        for name in ("enabled", "benchmark", "deterministic"):
            found[f"cudnn {name}"] = getattr(backends.cudnn, name)
        return found | {
            "float32 products": _precision(backends.cuda.matmul),
            "float32 convolutions": _precision(backends.cudnn.conv),
            "reduced-precision reduction": backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        }
    return found | {
        "oneDNN": backends.mkldnn.enabled,
        "float32 products": _precision(backends.mkldnn.matmul),
        "float32 convolutions": _precision(backends.mkldnn.conv),
        "flushes denormals": not float(torch.tensor(1e-40) * 1),
    }


def _precision(switch: Any) -> str:
    """Return the precision of float32 inputs; a switch that was not set leaves them exact."""
    return {"none": "ieee"}.get(switch.fp32_precision, str(switch.fp32_precision))
