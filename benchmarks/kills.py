"""Kill a run at random moments, resume it, and compare its result with an uninterrupted run.

Each run is a separate process, killed with SIGKILL, which cannot be caught; then the same command with --resume
completes it. The hash covers the tensors of last.safetensors and best.safetensors, and metrics.jsonl without its
seconds. Options after `--` are those of `senet train`, except the output.

    python benchmarks/kills.py --kills 20 -- se_resnet20 --data digits --recipe digits --set checkpoint_every=5
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

import senet
from senet.training.checkpoint import read_checkpoint
from senet.utils.errors import ModelFileError
from senet.utils.files import write_json
from senet.utils.isolation import python_module

RUN = ["se_resnet20", "--data", "digits", "--recipe", "digits", "--set", "epochs=3", "--set", "warmup=1"]
RUN += ["--set", "checkpoint_every=5", "--set", "ema=0.9", "--set", "mixup=0.2", "--set", "accumulate=2"]
RUN += ["--set", "randaugment=rand-m5-mstd0.5", "--set", "workers=2", "--set", "network.drop_path_rate=0.1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    parser.add_argument("run", nargs="*", default=RUN, help="arguments of `senet train`")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(args.run, Path(folder) / "whole")
        whole = time.perf_counter() - start
        expected = digest(Path(folder) / "whole")
        print(f"never stopped: {whole:.1f} s, {expected}", file=sys.stderr)
        trials = []
        for number in range(args.kills):
            output = Path(folder) / f"killed-{number}"
            # Importing PyTorch takes the first second or two; nothing is there to be lost before.
            after = moments.uniform(0.1 * whole, 1.05 * whole)
            alive = train(args.run, output, kill_after=after)
            saved = what_is_saved(output)
            left = sorted(path.name for path in output.glob(".*-*.*")) if output.exists() else []
            train(args.run, output, "--resume")
            found = digest(output)
            trials.append(
                {"after": round(after, 2), "had_ended": not alive, "saved": saved, "left": left, "hash": found}
            )
            print(f"{number + 1}: {after:.1f} s, {saved}, {found}", file=sys.stderr)
    same = sum(trial["hash"] == expected for trial in trials)
    show(trials, expected)
    result = {
        "equal": same,
        "kills": args.kills,
        "hash": expected,
        "trials": trials,
        "run": args.run,
        "senet": senet.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    if args.output:
        write_json(args.output, result)
    sys.exit(0 if same == args.kills else 1)


def train(run: list[str], output: Path, *options: str, kill_after: float | None = None) -> bool:
    """Run `senet train` to its end, or kill it after some seconds; whether it was alive then."""
    command = python_module("senet", ["train", *run, "--output", str(output), *options])
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        try:
            _, errors = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()}")
    return False


def what_is_saved(output: Path) -> str:
    try:
        state = read_checkpoint(output / "checkpoint.pt")["state"]
    except ModelFileError:
        return "nothing" if not (output / "checkpoint.pt").exists() else "DAMAGED"
    return f"{len(state['epochs'])} epochs, {state['step']} steps"


def digest(output: Path) -> str:
    found = hashlib.sha256()
    for name in ("last", "best"):
        for key, tensor in sorted(load_file(output / f"{name}.safetensors").items()):
            found.update(key.encode() + tensor.contiguous().numpy().tobytes())
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        epoch = {key: value for key, value in json.loads(line).items() if "second" not in key}
        found.update(json.dumps(epoch).encode())
    return found.hexdigest()[:16]


def show(trials: list[dict[str, object]], expected: str) -> None:
    table = Table("kill", "after (s)", "checkpoint then", "hash at the end", "", box=None, header_style="bold")
    for number, trial in enumerate(trials, 1):
        equal = "equal" if trial["hash"] == expected else "DIFFERS"
        table.add_row(str(number), str(trial["after"]), str(trial["saved"]), str(trial["hash"]), equal)
    Console().print(table)
    same = sum(trial["hash"] == expected for trial in trials)
    Console().print(f"{same} of {len(trials)} equal to the run that was never stopped, {expected}")


if __name__ == "__main__":
    main()
