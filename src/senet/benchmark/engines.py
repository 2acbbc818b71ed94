"""Measure networks in engines: each one in a process of its own, alternating; `bench_engine` against the plain twin."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from senet.benchmark.engine_process import Job
from senet.benchmark.exported_files import Entry, entries_of_files
from senet.benchmark.measuring import hardware
from senet.benchmark.networks import image_channels, open_network, without_se
from senet.benchmark.ratios import Ratio, ratio
from senet.benchmark.timing import LIMIT, Times, alternate, check_length
from senet.costs.tables import image_size
from senet.deployment.engines import is_exported
from senet.deployment.rewriting import FORMS, rewrite
from senet.utils.arguments import argument, argument_name
from senet.utils.choices import BenchEngine, Precision, check_choice
from senet.utils.isolation import clean_environment, python_module
from senet.utils.limits import MOST_BATCH, MOST_PROCESSES, check_at_most
from senet.utils.progress import Progress, no_progress
from senet.utils.sizes import SizeLike, parse_size, size_pair

__all__ = ["EngineBench", "EngineProcess", "EngineSide", "bench_engine", "measure_processes", "prepare"]

_SUFFIX: dict[BenchEngine, str] = {"eager": ".pt", "compile": ".pt", "onnxruntime": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class EngineSide:
    """Measurements of one network in an engine.

    Attributes:
        name: name of the network, and whether it is deployed; or the file.
        engine: that ran it.
        precision: of an exported file, None if senet did not write it; "fp32" of networks.
        seconds: time of a step, median over the rounds.
        quartiles: first and third quartile of the time.
        images_per_second: computed from `seconds`.
        first_seconds: time to open the network and run the first step, in which networks are compiled.
        ratio: of its time to that of the baseline in the same round; None for the baseline.

    Examples:
        >>> from senet.benchmark import bench_engine
        >>> found = bench_engine("se_resnet20", engine="eager", batch=1, size=32, rounds=6)
        >>> deployed = found.sides[0]
        >>> deployed.engine, deployed.precision, deployed.seconds > 0
        ('eager', 'fp32', True)
    """

    name: str
    engine: BenchEngine
    precision: Precision | None
    seconds: float
    quartiles: tuple[float, float]
    images_per_second: float
    first_seconds: float
    ratio: Ratio | None


@dataclass(frozen=True)
class EngineBench:
    """Comparison of a network with a baseline in an engine.

    Attributes:
        engine: that of the first side.
        sides: the deployed network, the original, and the deployed baseline. For a file: the file, and
            the other file.
        batch, size, threads: images per step, pixels of a side, and threads.
        rounds, steps, warm_up, steady: see `senet.Bench`.
        conclusive: whether the ratio of the first side is conclusive.
        reason: why it is inconclusive, and the remedy; otherwise empty.
        hardware: versions, machine and engine.

    Examples:
        >>> from senet.benchmark import bench_engine
        >>> found = bench_engine("se_resnet20", engine="eager", batch=1, size=32, rounds=6)
        >>> found.batch, found.size, found.conclusive or bool(found.reason)
        (1, 32, True)
    """

    engine: BenchEngine
    sides: list[EngineSide]
    batch: int
    size: Any
    threads: int
    rounds: int
    steps: int
    warm_up: int
    steady: bool
    conclusive: bool
    reason: str
    hardware: dict[str, Any]


class EngineProcess:
    """A process that runs one network, see `senet.benchmark.engine_process`.

    Args:
        name: of the network, for messages.
        job: what it runs.

    Attributes:
        first_seconds: time to open the network and run the first step.

    Raises:
        ValueError: the engine does not run the network.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name, self.job = name, job
        self._log: IO[bytes] = TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            python_module("senet.benchmark.engine_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=clean_environment(os.environ) | {"OMP_NUM_THREADS": str(job.threads)},
        )
        try:
            self.first_seconds = float(self._ask(asdict(job))["first_seconds"])
        except BaseException:
            self.close()
            raise

    def turn(self, steps: int) -> float:
        """Run steps, and return the seconds of one."""
        return float(self._ask({"steps": steps})["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; its answer or its log says why
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ValueError(f"{self.job.engine} cannot run {self.name} on {self.job.shape}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"its process ended with the status {self._process.wait()}"


def prepare(
    model: nn.Module, engine: BenchEngine, path: Path, *, size: tuple[int, int], batch: int | None, deployed: bool
) -> Path:
    """Write a network in the form that an engine runs.

    Args:
        model: the network, in evaluation mode.
        engine: that runs it.
        path: of the file, without suffix.
        size: height and width of the images.
        batch: images per step; None leaves it open.
        deployed: rewrite it for the engine first.

    Returns:
        The path of the file: the network itself (`torch.save`) for "eager" and "compile".

    Raises:
        ValueError: the network cannot be exported or pickled.
    """
    example = torch.randn(batch or 2, image_channels(model), *size, generator=torch.Generator().manual_seed(0))
    path = path.with_name(path.name + _SUFFIX[engine])
    if engine in ("eager", "compile"):
        if deployed:
            model, _ = rewrite(model, example, FORMS[engine])
        try:
            torch.save(model, path)
        except Exception as error:  # of any class: pickle runs the code of the network
            raise ValueError(f"{type(model).__name__} cannot be sent to a process: {error}") from error
    else:
        from senet.deployment.export import export

        export(model, path, example, rewrite=deployed, dynamic=("batch",) if batch is None else ())
    return path


def measure_processes(
    jobs: Sequence[tuple[str, Job]],
    *,
    rounds: int | None = None,
    seconds: float = 60.0,
    warm_up: int = LIMIT,
    progress: Progress = no_progress,
) -> tuple[Times, list[float]]:
    """Measure networks in processes of their own, alternating.

    Args:
        jobs: names, and what the processes run.
        rounds, seconds, warm_up, progress: see `senet.benchmark.interleave`.

    Returns:
        All times, and the seconds of the first step of each.

    Raises:
        ValueError: an engine does not run a network.
    """
    with _processes(jobs) as processes:
        times = alternate(
            lambda side, steps: processes[side].turn(steps),
            len(processes),
            rounds=rounds,
            seconds=seconds,
            warm_up=warm_up,
            progress=progress,
        )
        return times, [process.first_seconds for process in processes]


@contextmanager
def _processes(jobs: Sequence[tuple[str, Job]]) -> Iterator[list[EngineProcess]]:
    with ExitStack() as stack:
        processes = []
        for name, job in jobs:
            process = EngineProcess(name, job)
            stack.callback(process.close)
            processes.append(process)
        yield processes


def bench_engine(
    model: nn.Module | str | PathLike[str],
    against: nn.Module | str | PathLike[str] | None = None,
    *,
    engine: BenchEngine | None = None,
    batch: int | None = None,
    size: SizeLike | None = None,
    threads: int | None = None,
    rounds: int | None = None,
    seconds: float = 60.0,
    progress: Progress = no_progress,
) -> EngineBench:
    """Compare the inference time of a network in an engine with that of its plain twin, on the CPU.

    Three networks run in float32: `model` rewritten for the engine, the original `model`, and the plain twin, rewritten
    for the engine, too. Of exported files, two run as they are, also of different formats and precisions. Each has a
    process of its own, and they run alternately.

    Args:
        model: a module, a name or a model file, see `senet.bench`; or an exported file.
        against: baseline, in the same forms; by default the same network without SE, where SE of another library is
            replaced by the identity. Required for an exported file, as another one.
        engine: "eager", "compile" (`torch.compile`), "onnxruntime" or "openvino"; exported files have their own.
        batch: images per step; by default 1, or the batch that a file fixes.
        size: pixels of a side of the images, or (height, width); by default the input size of `model`, or 224.
        threads: number of threads; by default those of PyTorch.
        rounds: see `senet.bench`.
        seconds: see `senet.bench`.
        progress: see `senet.bench`.

    Raises:
        ValueError: a value is invalid, the network has no plain twin, an engine does not run it, or exported files do
            not take the same images.
        ImportError: the engine is not installed.
        ModelFileError: a file cannot be loaded.

    Examples:
        >>> from senet.benchmark import bench_engine
        >>> found = bench_engine("se_resnet20", engine="eager", batch=1, size=32, rounds=6)
        >>> len(found.sides), found.engine
        (3, 'eager')
    """
    check_length(rounds, seconds)
    threads = torch.get_num_threads() if threads is None else threads
    for name, number, most in (("batch", batch, MOST_BATCH), ("threads", threads, MOST_PROCESSES)):
        if number is not None and number < 1:
            raise ValueError(f"{argument_name(name)} must be 1 or more, got {number}")
        check_at_most(name, number, most)
    with TemporaryDirectory() as folder:
        if not isinstance(model, nn.Module) and is_exported(model):
            entries = entries_of_files(model, against, engine=engine, batch=batch, size=size, threads=threads)
        else:
            if engine is None:
                raise ValueError(f"a network needs an engine: give {argument('engine', 'openvino')}, for example")
            check_choice("engine", engine, BenchEngine)
            entries = _of_networks(model, against, engine, Path(folder), batch or 1, size, threads)
        jobs = [(entry.name, entry.job) for entry in entries]
        times, firsts = measure_processes(jobs, rounds=rounds, seconds=seconds, progress=progress)
    images, _, height, width = entries[0].job.shape
    sides = []
    for number, (name, job, precision) in enumerate(entries):
        own = times.seconds[:, number]
        low, median, high = np.quantile(own, [0.25, 0.5, 0.75]).tolist()
        relative = ratio(own, times.seconds[:, -1]) if number < len(jobs) - 1 else None
        sides.append(
            EngineSide(
                name=name,
                engine=job.engine,
                precision=precision,
                seconds=median,
                quartiles=(low, high),
                images_per_second=images / median,
                first_seconds=firsts[number],
                ratio=relative,
            )
        )
    first = sides[0].ratio
    assert first is not None
    engines = dict.fromkeys(side.engine for side in sides)
    return EngineBench(
        engine=sides[0].engine,
        sides=sides,
        batch=images,
        size=parse_size([height, width], "size"),
        threads=threads,
        rounds=len(times.seconds),
        steps=times.steps,
        warm_up=times.warm_up,
        steady=times.steady,
        conclusive=first.conclusive,
        reason=first.reason,
        hardware=hardware() | {engine: version(engine) for engine in engines if engine in ("onnxruntime", "openvino")},
    )


def _of_networks(
    model: Any, against: Any, engine: BenchEngine, folder: Path, batch: int, size: SizeLike | None, threads: int
) -> list[Entry]:
    """Return the deployed network, the original, and the baseline."""
    if against is not None and not isinstance(against, nn.Module) and is_exported(against):
        raise ValueError(f"{against} is an exported file, and the network is not: export both, or none")
    name, network = open_network(model)
    baseline = without_se(name, network) if against is None else open_network(against)
    pair = size_pair(parse_size(image_size(network)[1:] if size is None else size, "size"))
    entries = []
    for number, (called, one, deployed) in enumerate(
        ((f"{name}, deployed", network, True), (name, network, False), (f"{baseline[0]}, deployed", baseline[1], True))
    ):
        path = prepare(one.eval(), engine, folder / str(number), size=pair, batch=batch, deployed=deployed)
        shape = (batch, image_channels(one), *pair)
        entries.append(Entry(called, Job(engine, str(path), shape, threads)))
    return entries
