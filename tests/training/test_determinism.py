"""Runs with deterministic=true: switches, the environment of cuBLAS, and the same bits twice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import senet
from senet.runs import Silent
from senet.training.determinism import (
    CUBLAS_VARIABLE,
    deterministic_algorithms,
    explain_refusal,
    prepare_cublas,
)
from senet.utils.errors import TrainingError
from tests.cli.helpers import invoke
from tests.slow import fast_if
from tests.training.runs import KillAt, Killed, Notes, assert_same, run

ROOT = Path(__file__).parent.parent.parent
ON = ("deterministic=true", "epochs=2", "checkpoint_every=2")
CUDA = torch.device("cuda")

# Operations of which PyTorch lists that they raise on CUDA with deterministic algorithms, by their names in ATen.
REFUSED = {
    *("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward", "fractional_max_pool2d_backward"),
    *("fractional_max_pool3d_backward", "max_unpool2d", "max_unpool3d", "reflection_pad1d_backward"),
    *("reflection_pad2d_backward", "reflection_pad3d_backward", "upsample_linear1d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_trilinear3d_backward"),
    *("nll_loss2d_forward", "_ctc_loss_backward", "_embedding_bag_backward", "put_", "histc", "median"),
    *("grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "bincount", "kthvalue"),
}


def switches() -> dict[str, Any]:
    cudnn: Any = torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills memory": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": (cudnn.benchmark, cudnn.deterministic),
        "inductor": inductor.deterministic,
    }


WITHIN = {
    "algorithms": True,
    "warn only": False,
    "fills memory": False,
    "cudnn": (False, True),
    "inductor": True,
}


class Looking(Silent):
    """Keeps the switches of each step, and fails at the last one if it is asked to."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.seen: list[dict[str, Any]] = []
        self.failure = failure

    def step(self, *args: object) -> None:
        self.seen.append(switches())
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the variable, and without one that is left set."""
    monkeypatch.setenv(CUBLAS_VARIABLE, "any")
    monkeypatch.delenv(CUBLAS_VARIABLE)
    yield
    os.environ.pop(CUBLAS_VARIABLE, None)


def test_two_runs_and_a_resumed_one_are_bitwise_identical(tmp_path: Path) -> None:
    run(tmp_path / "one", *ON)
    run(tmp_path / "two", *ON)
    assert_same(tmp_path / "two", tmp_path / "one")
    with pytest.raises(Killed):
        run(tmp_path / "killed", *ON, reporter=KillAt(2, 3))
    run(tmp_path / "killed", *ON, resume=True)
    assert_same(tmp_path / "killed", tmp_path / "one")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_on_a_gpu(tmp_path: Path, precision: str) -> None:
    """In processes of their own: the variable has to be there before CUDA starts."""
    settings = [f"--set={setting}" for setting in (*ON, f"precision={precision}", "device=cuda", "workers=0")]
    commands = [[sys.executable, "-m", "senet", "train", "se_resnet20", "--data", "digits", "--recipe", "digits"]] * 2
    for name, given in zip(("one", "two"), commands, strict=True):
        subprocess.run([*given, *settings, "-o", str(tmp_path / name)], check=True, env=environment())
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("failure", [None, Killed(), TrainingError("any"), RuntimeError("any")], ids=repr)
def test_switches_hold_for_the_run_alone(tmp_path: Path, failure: BaseException | None) -> None:
    before, reporter = switches(), Looking(failure)
    if failure is None:
        run(tmp_path / "run", *ON, reporter=reporter)
    else:
        with pytest.raises(type(failure)):
            run(tmp_path / "run", *ON, reporter=reporter)
    assert reporter.seen == [WITHIN] * (6 if failure is None else 1)
    assert switches() == before
    assert before["algorithms"] is False


def test_a_run_without_it_leaves_a_users_switches_alone(tmp_path: Path) -> None:
    reporter = Looking()
    before = switches()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = True
        users = switches()
        run(tmp_path / "run", "epochs=1", reporter=reporter)
        assert reporter.seen == [users] * 3
        with deterministic_algorithms(True):
            assert switches() == WITHIN
        assert switches() == users
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False
    assert switches() == before


def test_resuming_with_another_choice_says_so(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", *ON, reporter=KillAt(2, 1))
    notes = Notes()
    run(tmp_path / "run", *ON, "deterministic=false", resume=True, reporter=notes)
    assert "resuming with changed deterministic: true -> false" in notes.notes
    assert "resuming with changed deterministic algorithms: true -> false" in notes.notes
    assert any("not be bitwise identical" in note for note in notes.notes)


@pytest.mark.parametrize("given", [":4096:8", ":16:8"])
def test_a_variable_that_is_set_is_kept(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Also when CUDA has started."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setenv(CUBLAS_VARIABLE, given)
    prepare_cublas(CUDA)
    assert os.environ[CUBLAS_VARIABLE] == given


@pytest.mark.usefixtures("no_variable")
def test_the_variable_is_set_before_cuda_starts() -> None:
    prepare_cublas(torch.device("cpu"))
    assert CUBLAS_VARIABLE not in os.environ
    prepare_cublas(CUDA)
    assert os.environ[CUBLAS_VARIABLE] == ":4096:8"


REMEDY = "set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before the process starts"


@pytest.mark.usefixtures("no_variable")
def test_cuda_that_has_started_without_it_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match=f"^deterministic=true needs .* CUDA has started in this process.*{REMEDY}"):
        run(tmp_path / "run", *ON, "device=auto")
    assert not (tmp_path / "run").exists()
    assert CUBLAS_VARIABLE not in os.environ


def test_a_workspace_that_is_not_deterministic_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_VARIABLE, ":0:0")
    with pytest.raises(ValueError, match=f"to be :4096:8 or :16:8, got ':0:0': {REMEDY}, or unset it"):
        prepare_cublas(CUDA)


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != CUBLAS_VARIABLE}
    return kept | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


# Stands for a GPU: what is in the environment at the moment in which PyTorch would start CUDA.
STARTS_CUDA = """
import os, sys, torch
def start():
    print("CUDA starts with", os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    raise RuntimeError("no GPU here")
torch.cuda._lazy_init = start
torch.cuda.is_available = lambda: True
from senet.cli import main
main()
"""


@pytest.mark.slow
def test_the_command_sets_the_variable_in_time(tmp_path: Path) -> None:
    options = ["--set", "deterministic=true", "-o", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", STARTS_CUDA, "train", "resnet20", "--data", "digits", "--recipe", "digits", *options],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.splitlines() == ["CUDA starts with :4096:8"], done.stderr


@pytest.mark.usefixtures("no_variable")
def test_without_it_the_variable_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):  # noqa: N818
        pass

    def enough(device: torch.device, timeout: float) -> None:
        raise Enough(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("senet.training.loop.open_processes", enough)
    with pytest.raises(Enough, match="cuda"):
        run(tmp_path / "run", "device=cuda")
    assert CUBLAS_VARIABLE not in os.environ


@pytest.mark.usefixtures("no_variable")
def test_several_processes_set_it_before_they_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = []

    def meet(device: torch.device, timeout: float) -> None:
        met.append((device.type, os.environ.get(CUBLAS_VARIABLE)))
        raise ValueError("nobody is there")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("senet.training.distributed.command.open_processes", meet)
    monkeypatch.setattr("signal.signal", lambda *args: None)  # the command ignores SIGTERM from then on
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = ("train", "resnet20", "--data", "digits", "--recipe", "digits", "--set", "deterministic=true")
    invoke(*given, "-o", tmp_path / "run")
    assert met == [("cuda", ":4096:8")]


def puts(*args: Any) -> None:
    """An operation that is refused on a CPU, too."""
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))


REFUSAL = "deterministic=true, and PyTorch has no deterministic implementation of put_.*set deterministic=false"


def test_an_operation_without_a_deterministic_implementation_is_named_before_the_run(tmp_path: Path) -> None:
    model = senet.create_model("resnet20", num_classes=3)
    model.fc.register_forward_pre_hook(puts)
    with pytest.raises(ValueError, match=REFUSAL):
        run(tmp_path / "run", *ON, "network={}", network=model)
    assert not (tmp_path / "run").exists()


def test_one_of_the_backward_pass_is_named_at_the_first_step(tmp_path: Path) -> None:
    model = senet.create_model("resnet20", num_classes=3)
    model.fc.weight.register_hook(puts)
    with pytest.raises(TrainingError, match=f"{REFUSAL}.*nothing is saved"):
        run(tmp_path / "run", *ON, "network={}", network=model)


def test_errors_of_pytorch_that_are_about_something_else() -> None:
    assert explain_refusal(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
    cublas = "Deterministic behavior was enabled with ... CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG="
    assert explain_refusal(RuntimeError(cublas)).startswith("deterministic=true needs CUBLAS_WORKSPACE_CONFIG=:4096:8")


class Operations(TorchDispatchMode):
    """Keeps the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# One of each class.
NETWORKS = ["se_resnet20", "se_resnet50", "se_preresnet110", "se_bn_inception", "se_shufflenet"]
NETWORKS += ["se_vgg16", "se_mobilenet", "se_inception_resnet_v2", "se_shake_shake_26_2x96d"]
NETWORKS += ["se_shake_even_29_2x4x64d"]


def operations_of_a_step(name: str, **options: Any) -> set[str]:
    """On the meta device, where operations are those of any device; on CUDA alone do some of them raise."""
    with torch.device("meta"):
        model = senet.create_model(name, num_classes=3, **options)
        images, labels = torch.empty(2, 3, 224, 224), torch.empty(2, dtype=torch.long)
        with Operations() as found:
            nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1, reduction="sum").backward()
    assert "convolution_backward" in found.names
    return found.names


@pytest.mark.parametrize("name", NETWORKS)
@fast_if(lambda name: name in ("se_resnet20", "se_bn_inception", "se_shufflenet"))
def test_steps_of_networks_have_a_deterministic_implementation(name: str) -> None:
    assert operations_of_a_step(name) & REFUSED == set()


def test_steps_of_a_max_squeeze_have_a_deterministic_implementation() -> None:
    assert operations_of_a_step("se_resnet20", squeeze="max") & REFUSED == set()


def test_a_step_that_has_none_is_seen() -> None:
    assert operations_of_a_step("torchvision/vgg11") & REFUSED == {"_adaptive_avg_pool2d_backward"}
