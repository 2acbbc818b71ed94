"""`senet bench`: compare the step time of two networks, interleaved in one process or in engines."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from senet.cli.common.completion import complete_network
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.image_options import image_size
from senet.cli.common.networks import build_network, network_options
from senet.cli.common.user_code import names_function
from senet.utils.choices import BenchDevice, BenchEngine, BenchMode, Dtype

__all__ = ["bench"]


def bench(
    network_or_file: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|FILE|FILE.py:FUNCTION",
            help="A network's name, timm/NAME, torchvision/NAME, a model file or an exported file; or a function "
            "without arguments that returns a network, for which senet runs your file.",
            autocompletion=complete_network,
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK|timm/NAME|torchvision/NAME|FILE|FILE.py:FUNCTION",
            help="Baseline. [default: the same network without SE]",
            autocompletion=complete_network,
        ),
    ] = None,
    engine: Annotated[
        BenchEngine | None,
        typer.Option(
            help="Measure inference in an engine on the CPU: the deployed network, the original and its plain twin, "
            "each in a process of its own. Two exported files (.onnx, .xml, .pt2) run as they are, each in its own "
            "engine."
        ),
    ] = None,
    mode: Annotated[
        BenchMode | None,
        typer.Option(
            help="A whole training step, or a forward pass in evaluation mode. [default: train; infer with --engine]"
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile both networks with torch.compile.")] = False,
    batch: Annotated[
        int | None, typer.Option(help="Images per step. [default: 16; with --engine 1; that of an exported file]")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="PIXELS|HxW", help="Side of the images, or height and width. [default: the network's]"),
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(help="tf32 is float32 with products and convolutions in TF32 on a GPU; 16 bits are by autocast."),
    ] = "float32",
    threads: Annotated[
        int | None, typer.Option(help="Threads of PyTorch, or of the engine. [default: one per core]")
    ] = None,
    device: Annotated[BenchDevice, typer.Option(help="auto is cuda where it is available.")] = "auto",
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Capture each step as a CUDA graph and time its replay.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(help="Number of rounds. [default: as many as fit into --seconds]")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time of all rounds, without the warm-up.")] = 60,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the step time of two networks: ratio with interval, speed and memory.

    Steps of both are interleaved in one process, after a warm-up, with the same images, memory format, dtype, optimizer
    and compile setting. A GPU is timed with CUDA events. With --engine, inference in ONNX Runtime, OpenVINO or PyTorch
    is compared instead. The exit status is 1 if the result is inconclusive.
    """
    import senet
    from senet.benchmark import bench_engine
    from senet.deployment.engines import is_exported
    from senet.models import names_file

    # A network with options has no name; the plain network gets the same options.
    model: Any = network_or_file
    if network_options(set_) or names_function(network_or_file):
        if names_file(network_or_file) and not names_function(network_or_file):
            raise ValueError(f"--set needs the name of a network, got the file {network_or_file!r}")
        model = build_network(network_or_file, set_)
    opponent = build_network(against, None) if against is not None and names_function(against) else against
    if engine is not None or is_exported(network_or_file):
        _check_engine(mode, compile, dtype, device, cuda_graph)
        found = bench_engine(
            model,
            opponent,
            engine=engine,
            batch=batch,
            size=image_size(size, "--size"),
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            progress=progress,
        )
        if json:
            print_json(asdict(found))
        else:
            _show_engine(found)
        _finish(found)
        return
    result = senet.bench(
        model,
        opponent,
        mode=mode or "train",
        compile=compile,
        batch=16 if batch is None else batch,
        size=image_size(size, "--size"),
        dtype=dtype,
        threads=threads,
        device=device,
        cuda_graph=cuda_graph,
        rounds=rounds,
        seconds=seconds,
        progress=progress,
    )
    if json:
        print_json(asdict(result))
    else:
        _show(result)
    _finish(result)


def _finish(result: Any) -> None:
    """Warn of times that vary, and end with status 1 if the result is inconclusive."""
    if not result.steady:
        note(f"times did not stabilise during a warm-up of {result.warm_up} steps", style="yellow")
    if not result.conclusive:
        note(f"error: inconclusive: {result.reason}", style="bold red")
        raise typer.Exit(1)


def _check_engine(mode: str | None, compile: bool, dtype: str, device: str, cuda_graph: bool) -> None:
    """Check the options that engines do not have.

    Raises:
        ValueError: one is given.
    """
    given = {
        "--mode train": mode == "train",
        "--compile": compile,
        f"--dtype {dtype}": dtype != "float32",
        f"--device {device}": device == "cuda",
        "--cuda-graph": cuda_graph,
    }
    found = next((option for option, present in given.items() if present), None)
    if found is not None:
        raise ValueError(f"engines run inference in float32 on the CPU: leave {found} out")


def _show_engine(result: Any) -> None:
    from senet.utils.sizes import size_text

    def relative(side: Any) -> str:
        if side.ratio is None:
            return "1"
        low, high = side.ratio.quartiles
        return f"{side.ratio.median:.3f} ({low:.3f} to {high:.3f}){'' if side.ratio.conclusive else ' ?'}"

    rows = [
        [
            side.name,
            side.engine,
            side.precision or "unknown",
            f"{1000 * side.seconds:.4g} ({1000 * side.quartiles[0]:.4g} to {1000 * side.quartiles[1]:.4g})",
            f"{side.images_per_second:.4g}",
            relative(side),
        ]
        for side in result.sides
    ]
    table(
        "",
        ["network", "engine", "precision", "ms a step", "images a second", f"time, to {result.sides[-1].name}"],
        rows,
    )
    facts = result.hardware
    versions = [f"senet {facts['senet']}", f"PyTorch {facts['torch']}"]
    engines = dict.fromkeys(side.engine for side in result.sides)
    versions += [f"{engine} {facts[engine]}" for engine in engines if engine in facts]
    images = f"{result.batch} image{'' if result.batch == 1 else 's'} of {size_text(result.size)}"
    steps = f"{result.steps} step{'' if result.steps == 1 else 's'}"
    stdout.print(
        f"\n{images}; medians and quartiles of {result.rounds} rounds of {steps}, alternating processes\n"
        f"{_device(facts)}, {result.threads} of {facts['cores']} cores; {', '.join(versions)}",
        soft_wrap=True,
    )


def _show(result: Any) -> None:
    from senet.utils.sizes import size_text

    sides, setting, facts = (result.model, result.against), result.setting, result.hardware
    columns = ["network", "parameters", "images a second", "ms a step", "saved for backward, MB", "peak memory, MB"]
    rows = [
        [
            side.name,
            side.parameters,
            f"{side.images_per_second:.4g}",
            f"{1000 * side.seconds:.4g}",
            "-" if side.saved_bytes is None else f"{side.saved_bytes / 1e6:.1f}",
            f"{side.peak_bytes / 1e6:.1f}",
        ]
        for side in sides
    ]
    table("", columns, rows)
    verdict = "" if result.conclusive else "inconclusive: "
    (low, high), (first, third) = result.interval, result.quartiles
    stdout.print(
        f"\n{verdict}{sides[0].name} takes {result.ratio:.3f} times as long as {sides[1].name} (95 % interval "
        f"{low:.3f} to {high:.3f}, quartiles {first:.3f} to {third:.3f})",
        soft_wrap=True,
    )
    if result.saved_ratio is not None:
        stdout.print(f"it saves {result.saved_ratio:.4f} times as much activation memory for backward", soft_wrap=True)
    stdout.print(
        f"\na step: {setting.work}\n{setting.batch} images of {size_text(setting.size)}, {setting.dtype}, "
        f"{setting.memory_format}, {'torch.compile' if setting.compile else 'eager'}"
        f"{', CUDA graph' if setting.cuda_graph else ''}; {result.rounds} rounds of "
        f"{result.steps} {'step' if result.steps == 1 else 'steps'} each after {result.warm_up} to warm up\n"
        f"{_device(facts)}, {setting.device}, "
        f"{setting.threads} of {facts['cores']} cores; senet {facts['senet']}, PyTorch {facts['torch']}, "
        f"torchvision {facts['torchvision']}, timm {facts['timm']}",
        soft_wrap=True,
    )
    if setting.device == "cpu":
        stdout.print("peak memory is what PyTorch allocates in addition to parameters, momentum and images")


def _device(facts: dict[str, Any]) -> str:
    if "gpu" not in facts:
        return f"{facts['processor'] or facts['machine']} ({facts['capability']})"
    return f"{facts['gpu']} (CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, Triton {facts['triton']})"
