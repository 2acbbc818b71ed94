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
        driver = self

        class Launcher:
            """In place of `triton.backends.nvidia.driver.CudaLauncher`."""

            def __init__(self, src: Any, metadata: Any) -> None:
                self.name = metadata.name

            def __call__(
                self, x: int, y: int, z: int, stream: int, function: Any, metadata: Any, launch_metadata: Any,
                enter: Any, leave: Any, *arguments: Any
            ) -> None:  # fmt: skip
                if enter is not None:
                    enter(launch_metadata)
                hooked = bool(getattr(enter, "calls", enter))
                known = (self.name, driver.device, (x, y, z), stream, function, metadata, hooked, arguments)
                driver.launched.append(Launched(*known))

        self.launcher_cls = Launcher
        self.utils = self

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
