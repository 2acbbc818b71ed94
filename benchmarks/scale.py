"""How training scales with processes: measured for one and two on this machine, and calculated for eight machines.

torchrun starts two processes with one thread each. In each round one of them trains alone, while the other one waits;
then both train independently, which shows how they share the memory and caches of the machine; then both train
together, with as many images each. Bytes are counted at the process group.

    python benchmarks/scale.py --output scale.json
    python benchmarks/scale.py --output scale.json --write docs/scale.md
    python benchmarks/scale.py --no-measuring --output scale.json --write docs/scale.md
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

import senet
from senet.benchmark import hardware
from senet.nn.batch_norm_utils import batch_norms
from senet.recipes import load_recipe
from senet.training import Trainer
from senet.training.distributed.data_parallel import synchronized
from senet.training.distributed.processes import BUCKET, Processes, close_processes, open_processes
from senet.utils.files import atomic_path, write_json
from senet.utils.isolation import python_module

BEGIN, END = "<!-- measured: written by benchmarks/scale.py -->", "<!-- /measured -->"
FLOAT = 4  # bytes
# One process that trains, two that know nothing of each other, and two that train one network.
KINDS = ("one", "independent", "together")


@dataclass(frozen=True)
class Cluster:
    """What the calculation assumes.

    Attributes:
        machines, gpus: how many, and of each machine.
        flops: that a GPU does a second in training: a fifth of the 312e12 of bf16 that an A100 is sold with.
        network: bytes a second, of a machine to others and at the same time from others.
        inside: the same, of a GPU to others in its machine.
        latency: seconds of a small message between machines.
        latency_inside: the same inside a machine.
        images: of a step, for each GPU.
    """

    machines: int = 8
    gpus: int = 8
    flops: float = 0.2 * 312e12
    network: float = 100e9 / 8
    inside: float = 200e9
    latency: float = 5e-6
    latency_inside: float = 3e-6
    images: int = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="se_resnet20")
    parser.add_argument("--batch", type=int, default=64, help="images of a step, for each process")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps of a measurement")
    parser.add_argument("--output", type=Path, help="a JSON file for the measurement, or of one with --no-measuring")
    parser.add_argument("--write", type=Path, help="a Markdown file, whose part between two comments is written anew")
    parser.add_argument("--no-measuring", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    measured = json.loads(args.output.read_text(encoding="utf-8")) if args.no_measuring else launch(args)
    if args.output and not args.no_measuring:
        write_json(args.output, measured)
    text = f"{show_measured(measured)}\n\n{show_calculated(Cluster())}\n\n{show_memory()}"
    print(text)
    if args.write:
        before, _, rest = args.write.read_text(encoding="utf-8").partition(BEGIN)
        with atomic_path(args.write) as temporary:
            temporary.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def launch(args: argparse.Namespace) -> dict[str, Any]:
    """Run this file under torchrun, with two processes of a thread each."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = python_module("torch.distributed.run", ["--nproc-per-node", "2", "--standalone", __file__])
        options = [f"--{name}={getattr(args, name)}" for name in ("network", "batch", "size", "rounds", "steps")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *options, f"--worker={result}"], check=True, env=environment)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def work(args: argparse.Namespace) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    processes = open_processes(torch.device("cpu"))
    found: dict[str, Any] = {}
    stack = ExitStack()
    for sync_bn in (False, True):
        by_itself = open_side(args, Processes(torch.device("cpu")), False, stack)
        together = open_side(args, processes, sync_bn, stack)
        speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(args.rounds + 2):
            for kind in KINDS if number % 2 else KINDS[::-1]:
                processes.gather(None)  # all are here
                since = time.perf_counter()
                if kind == "together":
                    together(args.steps)
                elif kind == "independent" or processes.is_first:
                    by_itself(args.steps)
                mine = args.steps * args.batch / (time.perf_counter() - since)
                rates = processes.gather(mine)
                if number >= 2:  # the first warm it up
                    speeds[kind].append(rates[0] if kind == "one" else sum(rates))
        with counting() as counted:
            together(1)
        found["sync_bn" if sync_bn else "own statistics"] = {
            "images a second": {kind: statistics.median(rates) for kind, rates in speeds.items()},
            "ratio": {
                kind: statistics.quantiles([b / a for a, b in zip(speeds["one"], speeds[kind], strict=True)], n=4)
                for kind in KINDS[1:]
            },
            "bytes": dict(counted),
        }
    if processes.is_first:
        about = {name: getattr(args, name) for name in ("network", "batch", "size", "rounds", "steps")}
        versions = {"hardware": hardware()}
        write_json(args.worker, {"found": found, **about, **versions})
    stack.close()
    close_processes()


def open_side(args: argparse.Namespace, processes: Processes, sync_bn: bool, stack: ExitStack) -> Callable[[int], None]:
    """Steps of training on images that are there already, as many for each process."""
    recipe = load_recipe("cifar", [f"batch={args.batch * processes.world_size}", f"sync_bn={str(sync_bn).lower()}"])
    torch.manual_seed(0)
    model = senet.create_model(args.network, num_classes=10).to(memory_format=torch.channels_last)
    if sync_bn:
        stack.enter_context(synchronized(model, processes))
    batches: Any = Batches(recipe, args.size)
    trainer = Trainer(model, recipe, batches, processes=processes)
    trainer.begin()
    pixels = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    labels = torch.randint(0, 10, (args.batch,))

    def steps(count: int) -> None:
        for _ in range(count):
            trainer.train_step(pixels, labels)
        trainer.read()

    return steps


class Batches:
    """As much of a loader as a trainer looks at."""

    def __init__(self, recipe: Any, size: int) -> None:
        self.batch, self.preprocessing, self.images = recipe.batch, recipe.preprocessing, recipe.batch
        object.__setattr__(self.preprocessing, "crop", size)

    def __len__(self) -> int:
        return 1000


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Bytes and calls that go to the process group: of gradients, which PyTorch sends by itself, and of all else."""
    counts = {"gradients": 0, "other": 0, "calls": 0}
    elements = 0

    def counted(send: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
            nonlocal elements
            elements += tensor.numel()
            counts["other"] += tensor.nbytes
            return send(tensor, *args, **options)

        return call

    sending = torch.distributed
    with (
        patch.object(sending, "all_reduce", counted(sending.all_reduce)),
        patch.object(sending, "broadcast", counted(sending.broadcast)),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler,
    ):
        yield counts
    sent = [event for event in profiler.events() if event.name in ("gloo:all_reduce", "gloo:broadcast")]
    whole = sum(math.prod(shape) for event in sent for shape in event.input_shapes if shape)
    counts["gradients"], counts["calls"] = (whole - elements) * FLOAT, len(sent)


def show_measured(measured: dict[str, Any]) -> str:
    """Markdown of what was measured."""
    rows = []
    for name, found in measured["found"].items():
        one, independent, together = (f"{found['images a second'][kind]:.0f}" for kind in KINDS)
        independent, together = (
            f"{rate}: {middle:.2f} ({low:.2f} to {high:.2f})"
            for rate, (low, middle, high) in zip((independent, together), found["ratio"].values(), strict=True)
        )
        counted = found["bytes"]
        rows.append(
            f"| {name} | {one} | {independent} | {together} | {counted['gradients']:,} | {counted['other']:,} | "
            f"{counted['calls']} |"
        )
    head = (
        "| batch norms | images a second, 1 process | 2 independently | 2 together | "
        "bytes of gradients | other bytes | calls |"
    )
    machine = measured["hardware"]
    note = (
        f"`{measured['network']}`, {measured['batch']} images of {measured['size']}x{measured['size']} a step for each "
        f"process, one thread each; medians of {measured['rounds']} interleaved rounds, and of their "
        "ratios to one process, with quartiles. "
        f"{machine['processor']} ({machine['capability']}), gloo; PyTorch {machine['torch']}, senet {machine['senet']}."
    )
    return "\n".join(("### One and two processes", "", head, "| --- |" + " ---: |" * 6, *rows, "", note))


def describe(name: str) -> tuple[int, int, int, dict[bool, list[int]]]:
    """Parameters, multiply-adds and saved bytes of an image; channels of the batch norms without SE and with SE."""
    model = senet.create_model(name)
    cost = senet.cost(model, (3, 224, 224))
    channels: dict[bool, list[int]] = {False: [], True: []}
    for bn in batch_norms(model):
        channels[isinstance(bn, senet.SEBatchNorm)].append(bn.num_features)
    return cost.params, cost.macs, cost.saved_bytes or 0, channels


def calculate(name: str, cluster: Cluster) -> dict[str, float]:
    """Return the seconds of a step of one GPU of many: computing, sending, and waiting for what is sent."""
    params, macs, _, channels = describe(name)
    n = cluster.machines * cluster.gpus
    # Two operations for each multiply-add, and twice as many in backward as in forward.
    compute = 3 * 2 * macs * cluster.images / cluster.flops
    # A ring over all GPUs enters and leaves each machine once, with 2 (n - 1) / n of the gradients.
    sent = 2 * (n - 1) / n * params * FLOAT
    ring = sent / min(cluster.network, cluster.inside)
    # All but the last bucket can be sent during backward, two thirds of the step.
    last = min(1.0, BUCKET * 2**20 / (params * FLOAT)) * ring
    waited = last + max(0.0, ring - last - 2 / 3 * compute)
    # Messages of batch norms, which overlap with nothing. One with SE broadcasts a pivot, and sums in forward
    # and back; PyTorch's gathers the statistics of all in forward, and sums in backward. A broadcast or a
    # gathering takes as many hops as a tree is high, a sum twice as many.
    hops = math.log2(cluster.machines) * cluster.latency + math.log2(cluster.gpus) * cluster.latency_inside
    plain, with_se = channels[False], channels[True]
    ring_of = 2 * (n - 1) / n
    numbers = sum(with_se) * (1 + 4 * ring_of) + sum(plain) * (2 * (n - cluster.gpus) + 2 * ring_of)
    sync = hops * (5 * len(with_se) + 3 * len(plain)) + numbers * FLOAT / cluster.network
    return {
        "compute": compute,
        "sent": sent,
        "ring": ring,
        "waited": waited,
        "sync": sync,
        "efficiency": compute / (compute + waited),
        "with sync_bn": compute / (compute + waited + sync),
    }


def show_calculated(cluster: Cluster) -> str:
    """Markdown of the calculation."""
    n = cluster.machines * cluster.gpus
    lines = [
        f"### {cluster.machines} machines with {cluster.gpus} GPUs each: a calculation",
        "",
        "| network | network of a machine | computing, ms | sent by each machine, MB | sending, ms | waiting, ms | "
        "efficiency | sync_bn, ms | efficiency with it |",
        "| --- |" + " ---: |" * 8,
    ]
    for name in ("resnet50", "se_resnet50", "senet154"):
        for gigabits in (10, 100, 400):
            found = calculate(name, Cluster(network=gigabits * 1e9 / 8))
            lines.append(
                f"| `{name}` | {gigabits} Gbit/s | {1e3 * found['compute']:.1f} | {found['sent'] / 1e6:.0f} | "
                f"{1e3 * found['ring']:.1f} | {1e3 * found['waited']:.1f} | {found['efficiency']:.0%} | "
                f"{1e3 * found['sync']:.1f} | {found['with sync_bn']:.0%} |"
            )
    lines += [
        "",
        f"{n} GPUs, {cluster.images} images of 224x224 for each a step; each computes {cluster.flops / 1e12:.0f}e12 "
        f"operations per second (6 for each multiply-add of an image); {cluster.inside / 1e9:.0f} GB/s between GPUs of "
        f"a machine; {1e6 * cluster.latency:.0f} µs for a small message between machines, "
        f"{1e6 * cluster.latency_inside:.0f} inside one.",
    ]
    return "\n".join(lines)


def show_memory() -> str:
    """Markdown of what a GPU holds, and what FSDP would spare it."""
    lines = [
        "### What each GPU holds",
        "",
        "| network | parameters | weights, MB | gradients, MB | momentum, MB | saved for backward, MB per image | "
        "of 32 images, MB | saved by FSDP on 64 GPUs |",
        "| --- |" + " ---: |" * 7,
    ]
    for name in ("se_resnet50", "senet154"):
        params, _, saved, _ = describe(name)
        each, kept = params * FLOAT, 32 * saved
        spared = 3 * each * 63 / 64
        lines.append(
            f"| `{name}` | {params:,} |{3 * f' {each / 1e6:,.0f} |'} {saved / 1e6:,.0f} | {kept / 1e6:,.0f} | "
            f"{spared / 1e6:,.0f} MB of {(3 * each + kept) / 1e6:,.0f}, {spared / (3 * each + kept):.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
