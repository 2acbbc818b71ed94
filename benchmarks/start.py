"""Start-up times: `import senet` relative to `import torch`, and from `senet.train` to the end of the first step.

Imports: a fresh interpreter each, interleaved; each round gives one ratio. `import senet` imports PyTorch when a name
that needs it is first used; `from senet import *` imports everything. First step: a fresh process each, timed from the
call of `senet.train`, whose module is imported, to the end of the first step. This includes opening the data, building
the network, decoding, and late imports.

    python benchmarks/start.py --rounds 15 --output start.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import senet
from senet.utils.files import write_json

# Timed inside the interpreter: its own start is no part of an import.
IMPORT = "import time as _t; _s = _t.perf_counter(); {}; print(_t.perf_counter() - _s)"
IMPORTS = ("import torch", "import senet", "from senet import *")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="se_resnet20")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--rounds", type=int, default=15, help="2 or more")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)  # what the fresh processes do
    args = parser.parse_args()
    if args.first_step:
        print(_first_step(args.network, args.data, args.recipe))
        return

    what = ["--network", args.network, "--data", args.data, "--recipe", args.recipe]
    sides = {statement: ["-c", IMPORT.format(statement)] for statement in IMPORTS}
    sides["first step"] = [__file__, "--first-step", *what]
    for side in sides.values():
        _seconds(side)  # warm up: compile to bytecode, and bring the files into memory
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(args.rounds):
        # The order rotates over rounds, so that a machine that slows down slows all sides.
        for index in range(len(sides)):
            name = list(sides)[(index + number) % len(sides)]
            seconds[name].append(_seconds(sides[name]))

    result = {
        "seconds": {name: _spread(values) for name, values in seconds.items()},
        "times_import_torch": {
            name: _spread([a / b for a, b in zip(seconds[name], seconds["import torch"], strict=True)])
            for name in IMPORTS[1:]
        },
        "network": args.network,
        "data": args.data,
        "recipe": args.recipe,
        "rounds": args.rounds,
        "senet": senet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    print(json.dumps(result, indent=2))
    if args.output:
        write_json(args.output, result)


def _seconds(arguments: list[str]) -> float:
    """What a fresh interpreter prints in its last line."""
    done = subprocess.run([sys.executable, "-P", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _first_step(network: str, data: str, recipe: str) -> float:
    """Seconds from the call of `senet.train` to the end of the first step."""
    from senet.runs import Silent

    class Done(Exception):  # noqa: N818  (no error: it ends the run)
        pass

    class Reporter(Silent):
        def step(self, *figures: object, **more: object) -> None:
            raise Done

    train = senet.train  # imports what training needs
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            train(network, data, recipe, Path(folder) / "run", reporter=Reporter())
        except Done:
            return time.perf_counter() - start
    raise RuntimeError("the run ended without a step")


def _spread(values: list[float]) -> dict[str, float | list[float]]:
    low, median, high = statistics.quantiles(values, n=4)
    return {
        "median": float(f"{median:.3g}"),
        "quartiles": [float(f"{low:.3g}"), float(f"{high:.3g}")],
        "range": [float(f"{min(values):.3g}"), float(f"{max(values):.3g}")],
    }


if __name__ == "__main__":
    main()
