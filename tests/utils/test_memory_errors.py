"""Errors that say that memory is used up, as PyTorch and CUDA word them."""

import pytest
import torch
from torch import nn

import senet
from senet.evaluation import network_logits
from senet.utils.memory_errors import is_out_of_memory, memory_sizes, suggesting_batch
from tests.helpers import randomise

# PyTorch 2.14's words for it, in one line as it prints them.
CUDA = (
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 1 has a total capacity of 79.20 GiB of which 317.50 MiB is "
    "free. Including non-PyTorch memory, this process has 78.88 GiB memory in use. Of the allocated memory 77.01 GiB "
    "is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
SIZES = " (tried to allocate 0.50 GiB, 0.31 GiB of 79.20 GiB are free on GPU 1)"


@pytest.mark.parametrize(
    ("error", "sizes"),
    [
        (torch.OutOfMemoryError(CUDA), SIZES),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), " (tried to allocate 2.00 GiB)"),
        (torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), ""),
        (MemoryError(), ""),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), ""),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ""),
        (RuntimeError("NCCL Error 1: unhandled cuda error. Last error:\nCuda failure 2 'out of memory'"), ""),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), ""),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 1073741824 bytes. Error code 12 (Cannot allocate memory)"
            ),
            " (tried to allocate 1.00 GiB)",
        ),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1073741824 bytes."),
            " (tried to allocate 1.00 GiB)",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_memory_that_is_used_up(error: Exception, sizes: str) -> None:
    assert is_out_of_memory(error)
    assert memory_sizes(error) == sizes


def test_what_pytorch_says_today() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert memory_sizes(caught.value) == " (tried to allocate 1,073,741,824.00 GiB)"


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError("x")]
)
def test_other_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert memory_sizes(error) == ""


def short_of_memory(*args: object) -> None:
    raise torch.OutOfMemoryError(CUDA)


def test_an_evaluation_keeps_the_class_and_notes_the_batch() -> None:
    """So that callers can catch it, and try a smaller batch."""
    model = randomise(senet.create_model("resnet20", num_classes=2))
    model.layer2.register_forward_pre_hook(short_of_memory)
    pixels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        network_logits(model, senet.data.Preprocessing.of(model.pretrained_cfg), pixels)
    assert caught.value.__notes__ == [f"out of memory with batch=3: give a smaller batch{SIZES}"]


def test_other_errors_get_no_note() -> None:
    with pytest.raises(RuntimeError, match="^shapes$") as caught, suggesting_batch(3):
        raise RuntimeError("shapes")
    assert not hasattr(caught.value, "__notes__")


def test_a_network_on_an_example_or_in_a_benchmark_is_not_said_to_be_at_fault() -> None:
    """Where whatever a network raises becomes an error about its input, this stays what it is."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    model[0].register_forward_pre_hook(short_of_memory)
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(torch.OutOfMemoryError):
        senet.insert(model, at=["1"], example=example)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        senet.bench(model, model, size=8, batch=2, rounds=3)
    assert caught.value.__notes__ == [f"out of memory with batch=2: give a smaller batch{SIZES}"]
