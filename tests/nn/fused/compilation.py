"""Compile Triton kernels for GPUs that are not there: the compiler, ptxas included, is part of Triton."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from senet.nn.fused.triton.launch import Launches, Step

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Compiled(NamedTuple):
    """What a compiled kernel takes of a multiprocessor, and its code."""

    name: str
    registers: int
    spilled: int  # bytes of stack
    shared: int
    ptx: str


def _source(step: Step, types: dict[str, torch.dtype | None]) -> ASTSource:
    """A launch with 16-byte aligned pointers of these dtypes (None is a null pointer); other names are of floats."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = dict(step.constants)
    attributes: dict[tuple[int, ...], Any] = {}
    for place, (name, given) in enumerate(zip(step.kernel.arg_names, step.arguments, strict=False)):
        x = types.get(given, 0.0) if isinstance(given, str) else given
        if x is None or (isinstance(x, int) and x == 1):
            signature[name], constants[name] = "constexpr", x
        elif isinstance(x, torch.dtype):
            signature[name] = _TYPES[x]
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(x, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if x < 2**31 else "i64"
            if x % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(step.constants, "constexpr")
    return ASTSource(step.kernel, signature, constants, attributes)


def check_types(step: Step, types: dict[str, torch.dtype | None], capability: int) -> str:
    """Run the compiler's front end alone, which takes a hundredth of a second, and return Triton's IR."""
    target = GPUTarget("cuda", capability, 32)
    backend = triton.compiler.make_backend(target)
    options = backend.parse_options({"num_warps": step.num_warps})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    implementation = backend.get_codegen_implementation(options)
    source = _source(step, types)
    return str(source.make_ir(target, options, implementation, backend.get_module_map(), context))


def compile_step(step: Step, types: dict[str, torch.dtype | None], capability: int) -> Compiled:
    """Compile a launch to machine code."""
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(_source(step, types), target=target, options={"num_warps": step.num_warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(_CUOBJDUMP), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    name = step.kernel.__name__
    return Compiled(name, int(found[1]), int(found[2]), compiled.metadata.shared, compiled.asm["ptx"])


def steps_of(launches: Launches) -> tuple[Step, ...]:
    return launches._steps
