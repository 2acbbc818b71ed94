"""Check whether Triton's kernels run on a device. Triton is imported only after all other checks pass."""

import importlib.util
import os

import torch

__all__ = ["interprets", "unsupported"]

# Ampere, the first architecture with `tf32x3` products.
_CAPABILITY = (8, 0)


def interprets() -> bool:
    """Return whether kernels run on a CPU, in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None


def unsupported(device: torch.device, by_name: bool = False) -> str | None:
    """Return why a device cannot run Triton's kernels, as part of a sentence; None where it can.

    The last check compiles and runs a kernel.

    Args:
        device: a CPU or a GPU with its index.
        by_name: whether the backend was chosen by name; other versions of Triton are then tried as well.
    """
    if interprets():
        return None if device.type in ("cpu", "cuda") else f"they do not run on {device.type}"
    if device.type != "cuda":
        return f"they run on GPUs, and with TRITON_INTERPRET=1 on a CPU, not on {device.type}"
    if torch.version.hip is not None:
        return "they are for NVIDIA GPUs, and this PyTorch is for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"{name} has compute capability {capability[0]}.{capability[1]}, and they need 8.0 (Ampere) or newer"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed, which PyTorch for CUDA requires"
    try:
        version = _version()
        if version is not None and not by_name:
            return version
        _try(device)
    except Exception as error:  # no compiler, an unsupported driver: failures have many classes
        return f"Triton does not work here ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]})"
    return None


def _version() -> str | None:
    """Return why this version of Triton is unsupported; None for a tested version."""
    import triton

    from senet.nn.fused.triton.launch import VERSIONS

    known = tuple(int(part) for part in triton.__version__.split(".")[:2]) in VERSIONS
    names = ", ".join(f"{major}.{minor}" for major, minor in sorted(VERSIONS))
    return None if known else f"they are tested with Triton {names}, not {triton.__version__}"


def _try(device: torch.device) -> None:
    """Raise an AssertionError unless a kernel matches the reference."""
    from senet.nn.fused import reference
    from senet.nn.fused.triton import passes as triton_passes

    y = torch.arange(24.0, device=device).reshape(2, 3, 4)
    pivot = torch.ones(3, device=device)
    found, expected = triton_passes.stats(y, pivot), reference.stats(y, pivot)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
