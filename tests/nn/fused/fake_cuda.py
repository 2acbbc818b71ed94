"""A CUDA driver for Triton that compiles for a real GPU, on a machine without one, and records launches."""

import itertools
from typing import Any, NamedTuple

from triton.backends.compiler import GPUTarget


class Launched(NamedTuple):
    """What a launcher was called with."""

    kernel: str
    device: int
    grid: tuple[int, int, int]
    stream: int
    function: Any
    metadata: Any
    hooked: bool
    arguments: tuple[Any, ...]


class FakeDriver:
    """Triton's driver: two devices, each with a stream."""

    def __init__(self) -> None:
        self.device = 0
        self.launched: list[Launched] = []
        self.streams = {0: 70, 1: 71, -1: 70}
        self.serial = itertools.count()
        self.launcher_cls = self._launcher("Launcher")
        self.utils = self

    def _record(
        self, name: str, x: int, y: int, z: int, stream: int, function: Any, hooks: tuple[Any, ...],
        arguments: tuple[Any, ...]
    ) -> None:  # fmt: skip
        metadata, launch_metadata, enter, _ = hooks
        if enter is not None:
            enter(launch_metadata)
        hooked = bool(getattr(enter, "calls", enter))
        self.launched.append(Launched(name, self.device, (x, y, z), stream, function, metadata, hooked, arguments))

    def _launcher(self, qualname: str, annotated: bool | None = None) -> type:
        """A class in place of `CudaLauncher`.

        Args:
            qualname: of the class.
            annotated: whether it calls its function as in Triton 3.7 and 3.8, or as in 3.5 and 3.6; None has none.
        """
        driver = self

        class Launcher:
            launch_cooperative_grid, launch_pdl = False, True

            def __init__(self, src: Any, metadata: Any) -> None:
                self.name = metadata.name
                if annotated:
                    self.arg_annotations, self.kernel_signature = [self.name, "annotations"], self.name.encode()

            def __call__(self, x: int, y: int, z: int, stream: int, function: Any, *rest: Any) -> None:
                hooks, arguments = rest[:4], rest[4:]
                modes = (self.launch_cooperative_grid, self.launch_pdl)
                if annotated is None:
                    driver._record(self.name, x, y, z, stream, function, hooks, arguments)
                elif annotated:
                    more = (self.arg_annotations, self.kernel_signature, arguments)
                    self.launch(x, y, z, stream, function, *modes, *hooks, None, None, *more)
                else:
                    self.launch(x, y, z, stream, function, *modes, None, None, *hooks, *arguments)

            def launch(self, x: int, y: int, z: int, stream: int, function: Any, *rest: Any) -> None:
                assert rest[:2] == (False, True)
                if annotated:
                    hooks, (*scratch, annotations, signature, arguments) = rest[2:6], rest[6:]
                    assert (annotations, signature) == ([self.name, "annotations"], self.name.encode())
                else:
                    scratch, hooks, arguments = list(rest[2:4]), rest[4:8], rest[8:]
                assert scratch == [None, None]
                driver._record(self.name, x, y, z, stream, function, hooks, arguments)

        Launcher.__qualname__ = qualname
        Launcher.__module__ = "triton.backends.nvidia.driver"
        return Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return self.streams[device]

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        assert kernel[1:4] == b"ELF"
        return object(), (name, next(self.serial), device), 32, 0, 1024

    def unload_module(self, module: Any) -> None:
        pass
