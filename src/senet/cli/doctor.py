"""`senet doctor`: versions, devices, compiler and fused backend of this machine, and what makes it slow."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from senet.cli.common.console import JsonOption, print_json, stdout, table

__all__ = ["doctor"]

# Shared memory through which worker processes pass batches, in bytes; 64 MiB in containers by default.
_SHARED_MEMORY = 2**30


@dataclass(frozen=True)
class _Row:
    """A line of the report.

    Attributes:
        topic: "versions", "extras", "devices" or "speed".
        item: what is described.
        value: what was found.
        advice: what is slow or missing, why, and what to do; "" if nothing is.
    """

    topic: str
    item: str
    value: str
    advice: str = ""


def doctor(json: JsonOption = False) -> None:
    """Show versions, devices, the compiler, how SE is computed here, and what is slow on this machine and why."""
    rows = [*_versions(), *_extras(), *_devices(), *_speed()]
    if json:
        print_json([asdict(row) for row in rows])
        return
    table("", ["topic", "item", "found"], [(row.topic, row.item, row.value) for row in rows], text=3)
    advised = [row for row in rows if row.advice]
    stdout.print()
    for row in advised:
        stdout.print(f"{row.item}: {row.advice}", soft_wrap=True, markup=False)
    if not advised:
        stdout.print("Nothing here makes senet slow.")


def _versions() -> Iterator[_Row]:
    from importlib.metadata import PackageNotFoundError, version

    from senet import __version__

    yield _Row("versions", "senet", __version__)
    yield _Row("versions", "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in ("torch", "torchvision", "timm", "triton"):
        try:
            yield _Row("versions", name, version(name))
        except PackageNotFoundError:
            yield _Row("versions", name, "not installed")


def _extras() -> Iterator[_Row]:
    from senet.utils.extras import install_command, missing_packages

    for extra, missing in missing_packages().items():
        value = f"without {', '.join(missing)}" if missing else "installed"
        yield _Row("extras", extra, value, install_command(extra) if missing else "")


def _devices() -> Iterator[_Row]:
    import torch

    from senet.benchmark import hardware

    found = hardware()
    cores, threads = _cores(), torch.get_num_threads()
    advice = ""
    if threads < cores:
        limit = next((f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS",) if name in os.environ), "")
        advice = f"PyTorch uses {threads} of {cores} cores{f', because of {limit}' if limit else ''}"
    name = found["processor"] or found["machine"]
    counts = ", ".join(f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in ((cores, "core"), (threads, "thread")))
    yield _Row("devices", "CPU", f"{name}, {counts}, {found['capability']}", advice)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts: Any = torch.cuda.get_device_properties(index)
        memory = f"{facts.total_memory / 2**30:.0f} GiB"
        yield _Row(
            "devices", f"cuda:{index}", f"{facts.name}, {memory}, compute capability {facts.major}.{facts.minor}"
        )
    if not torch.cuda.is_available():
        yield _Row("devices", "CUDA", "no GPU that PyTorch can use", _why_no_gpu())
    if torch.backends.mps.is_available():
        yield _Row("devices", "mps", "available")


def _why_no_gpu() -> str:
    """Return why PyTorch uses no GPU of a machine that has one; "" if it has none."""
    import torch

    if shutil.which("nvidia-smi") is None and not os.path.exists("/dev/nvidia0"):
        return ""
    if torch.version.cuda is None:
        return "this machine has an NVIDIA GPU, and this PyTorch is built without CUDA: install PyTorch for CUDA"
    return f"this machine has an NVIDIA GPU that PyTorch for CUDA {torch.version.cuda} cannot use: update the driver"


def _speed() -> Iterator[_Row]:
    import torch

    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(compiler)
    yield _Row("speed", "compiler", path or f"no {compiler}")
    yield _fused("cpu")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _fused(f"cuda:{index}")
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() in ("x86_64", "AMD64") and capability in ("DEFAULT", "NO AVX"):
        yield _Row("speed", "vectors", capability, "this CPU lacks AVX2, for which PyTorch's kernels are written")
    supported = _has_bfloat16()
    advice = "" if supported else 'this CPU converts bfloat16 in software: precision="bf16" is slower than "fp32" on it'
    yield _Row("speed", "bfloat16 on the CPU", "supported" if supported else "not supported", advice)
    yield from _shared_memory()
    yield from _load()


def _fused(device: str) -> _Row:
    """Return how SE after batch norm is computed on a device, by trying it."""
    import warnings

    from senet.nn.fused.backends import fused_by, fused_choice
    from senet.utils.notices import listening

    notices: list[str] = []
    with warnings.catch_warnings(record=True) as caught, listening(notices.append, slower_only=True):
        warnings.simplefilter("always")
        name = fused_by(device)
    reasons = [*(str(one.message) for one in caught), *notices]
    if fused_choice() == "off":
        reasons = ["SENET_FUSED turns fused passes off: unset it"]
    return _Row("speed", f"fused SE on {device}", name, "; ".join(reasons))


def _has_bfloat16() -> bool:
    import torch

    backend: Any = torch.backends.mkldnn
    operations: Any = torch.ops.mkldnn
    return bool(backend.is_available() and operations._is_mkldnn_bf16_supported())


def _shared_memory() -> Iterator[_Row]:
    if not os.path.isdir("/dev/shm"):
        return
    total = shutil.disk_usage("/dev/shm").total
    advice = "" if total >= _SHARED_MEMORY else "worker processes may run out of it: docker run --shm-size 8g"
    yield _Row("speed", "/dev/shm", f"{total / 2**30:.1f} GiB", advice)


def _load() -> Iterator[_Row]:
    """Yield the number of processes that are running, which is the load of the last minute."""
    if not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], _cores()
    busy = load > cores / 2
    advice = f"other processes use the {cores} cores, so times vary and are longer" if busy else ""
    yield _Row("speed", "load", f"{load:.1f}", advice)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
