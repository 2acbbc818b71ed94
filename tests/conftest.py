"""Shapes and types are checked at run time here, in the tests, and nowhere else."""

import gc
import os
from collections.abc import Iterator

from jaxtyping import config, install_import_hook

import tests.typecheck  # noqa: F401  (the hook names it)

# Before anything of senet is imported: the modules whose annotations state shapes of tensors; a test compares the list.
SHAPED = [
    "senet.nn.attention",
    "senet.nn.block",
    "senet.nn.batch_norm",
    "senet.nn.batch_norm_forward",
    "senet.nn.sum_relu",
]
SHAPED += ["senet.data.loading.device_batches"]
SHAPED += ["senet.data.augmentation", "senet.data.preprocessing", "senet.data.boxes"]
SHAPED += ["senet.data.loading.grouping", "senet.models.detection.backbone", "senet.tasks.detection.network"]
SHAPED += ["senet.models.shake_shake", "senet.models.shake_mix"]
SHAPED += [f"senet.models.{name}" for name in ("base", "units", "resnet", "bn_inception", "shufflenet")]
_hook = install_import_hook(SHAPED, "tests.typecheck.check")

os.environ.setdefault("MPLBACKEND", "agg")
# The passes of batch norm with SE, by PyTorch's own kernels: nothing is compiled but where a test is about that.
os.environ.setdefault("SENET_FUSED", "aten")

import pytest  # noqa: E402
import torch  # noqa: E402

from tests.slow import mark_slow  # noqa: E402

# A full collection visits every object of torch, sympy and timm, which takes half a second: at Python's thresholds,
# collections take a tenth of the suite's time.
gc.set_threshold(10_000, 20, 10)
# Tests run in several processes; threads of each that wait for each other would cost most of the time. That holds for
# the commands that they start, too.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow(items)


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of later collections of garbage, which take half a second with it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers, whichever others run."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def quick_curves() -> Iterator[None]:
    """A run's curves.png is an empty file, written as a picture is: drawing takes half of a short run's time."""
    from senet.runs import publishing
    from tests.helpers import write_no_curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "draw_curves", write_no_curves)
        yield


@pytest.fixture
def real_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's curves.png is drawn, also where `quick_curves` is in force."""
    from senet.runs import publishing
    from senet.utils.figures import draw_curves

    monkeypatch.setattr(publishing, "draw_curves", draw_curves)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """`senet gates` without its page and figures, which take most of its time and are tested by themselves."""
    import senet.gates

    for name in ("write_page", "draw_figure6", "draw_figure7"):
        monkeypatch.setattr(senet.gates, name, lambda *args, **options: None)


@pytest.fixture
def traced() -> Iterator[None]:
    """For tests that trace, compile or export: the checks of shapes are Python that no tracer can follow."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
    torch.compiler.reset()
