"""`benchmarks/gpu.py` to its end on a CPU, with tiny sizes: it is run on GPUs by others, and must not fail there."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import senet
from senet.nn.fused import fused_choice
from senet.utils.notices import listening
from tests.helpers import noting

SMOKE = ["--device", "cpu", "--quick"]
PAGE = "before\n\n<!-- measured: written by benchmarks/gpu.py -->\n\nold\n\n<!-- /measured -->\n\nafter\n"


@pytest.fixture
def gpu() -> Any:
    return import_module("gpu")


def smoke(gpu: Any, folder: Path, *arguments: str) -> dict[str, Any]:
    """The results of a smoke test; the page is written too."""
    output = folder / "gpu.jsonl"
    with listening(lambda text: None):
        assert gpu.main([*SMOKE, "--output", str(output), *arguments]) == 0
    return read(output)


def read(output: Path) -> dict[str, Any]:
    """What a file of results holds."""
    found = import_module("common").read_results(output, None)
    return {"about": found.pop("about"), "cases": found}


def write(output: Path, results: dict[str, Any]) -> None:
    """Write a file of results."""
    import_module("common").write_results(output, {"about": results["about"]} | results["cases"])


def test_layers_and_numerics_are_measured_and_written(gpu: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    before = fused_choice()
    cases = ("numerics", "host-time", "device-time", "infer-bf16-1")
    found = smoke(gpu, tmp_path, "--fused", "off", "--cases", *cases, "--write", str(page))
    assert fused_choice() == before != "off"
    assert list(found["cases"]) == sorted(cases, key=list(gpu.CASES).index)
    assert found["about"]["smoke test"]
    assert found["about"]["backend"] == "off"
    assert found["about"]["hardware"]["torch"] == torch.__version__
    numerics = found["cases"]["numerics"]
    assert numerics["over tolerance"] == []
    assert numerics["same bits twice"]
    assert len(numerics["errors"]) == 9
    assert 0 < numerics["errors"]["bfloat16, channels_last"]["d fc1.weight"] < 2e-2
    times = found["cases"]["host-time"]["microseconds"]["SEBatchNorm with sum and ReLU"]
    assert times["forward"]["median"] > 0
    functions = found["cases"]["host-time"]["functions"]
    assert len(functions) == 12
    assert any("run_backward" in row["function"] for row in functions)  # in the thread that is profiled
    text = page.read_text()
    assert text.startswith("before\n\n<!-- measured")
    assert text.endswith("<!-- /measured -->\n\nafter\n")
    assert "A smoke test with tiny sizes: the figures are no measurement" in text
    assert "old" not in text.split("measured -->")[1].split()
    for part in ("### Inference, eager, bf16", "### Errors against float64", "### Host time", "### Kernels"):
        assert part in text
    assert "| `timm/seresnet18` | " in text
    # Every figure has its quartiles.
    speeds = text.partition("bf16: images/s")[2].partition("###")[0]
    assert len(re.findall(r"\| [\d.e+]+ \([\d.e+]+ to [\d.e+]+\) \|", speeds)) == 4
    host = text.partition("### Host time")[2].partition("Of our layer")[0]
    assert len(re.findall(r"\d+ \(\d+ to \d+\) \|", host)) == 6


@pytest.mark.slow
def test_steps_of_all_networks_and_the_trainer(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    cases = ("train-bf16-16", "train-tf32-64", "compiled-bf16-128", "trainer", "first-step")
    # By ATen: Inductor's passes would be compiled by the stand-in.
    found = smoke(gpu, tmp_path, "--fused", "aten", "--cases", *cases, "--write", str(page))["cases"]
    assert [side["name"] for side in found["train-bf16-16"]["sides"]] == [
        "resnet18",
        "resnet18, units fused",
        "se_resnet18",
        "timm/resnet18",
        "timm/seresnet18",
        "timm/resnet18 + senet.insert",
        "resnet18, SE by addcmul (NVIDIA)",
    ]
    assert [side["twin"]["name"] for side in found["train-bf16-16"]["sides"]] == [
        *("resnet18", "resnet18", "resnet18", "timm/resnet18", "timm/resnet18", "timm/resnet18", "resnet18")
    ]
    assert found["train-bf16-16"]["sides"][2]["also"]["name"] == "resnet18, units fused"
    assert found["train-bf16-16"]["setting"]["dtype"] == "bfloat16"
    assert found["compiled-bf16-128"]["setting"]["compile"]
    assert found["first-step"]["empty caches"].keys() == {"resnet18", "se_resnet18"}
    assert [(side["name"], side["cuda_graph"]) for side in found["trainer"]["sides"]] == [
        *(("resnet20", "auto"), ("se_resnet20", "auto"), ("resnet20", "off"), ("se_resnet20", "off"))
    ]
    text = page.read_text()
    assert "; to the fused plain network " in text
    for part in ("### Training step: peak memory", "### `senet train`, 32x32", "### First step"):
        assert part in text


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_case_runs_on_a_gpu(gpu: Any, tmp_path: Path) -> None:
    # In a process of its own: run-time checks of types and warnings as errors do not go through torch.compile.
    output = tmp_path / "gpu.jsonl"
    options = ["--quick", "--minutes", "20", "--output", str(output)]
    run = subprocess.run([sys.executable, gpu.__file__, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found = read(output)["cases"]
    assert found.keys() == gpu.CASES.keys()
    assert all("left out" not in case for case in found.values())
    assert found["trainer"]["notices"] == []  # it runs in a CUDA graph
    assert found["device-time"]["maps"][0]["kernels"]["reduce"]["GB/s"] > 0


def test_what_is_left_out_or_fails_is_listed_and_what_was_measured_stays(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(name: str, run: Any) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    case = gpu.Case
    cases = {
        "device-time": case(lambda name, run: {"maps": []}, 1),
        "trainer": case(fails, 1),
        "numerics": case(lambda name, run: {"maps": []}, 1e9),
        "graph-bf16-16": case(fails, 1, on_cpu=False),
    }
    monkeypatch.setattr(gpu, "CASES", cases)
    page, output = tmp_path / "page.md", tmp_path / "gpu.jsonl"
    page.write_text(PAGE)
    assert gpu.main([*SMOKE, "--fused", "off", "--output", str(output), "--write", str(page)]) == 1
    assert "OutOfMemoryError" in capsys.readouterr().err
    text = page.read_text()
    assert "- `trainer`: OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB\n" in text
    late = r"- `numerics`: it may take 1000000000 s, and \d+ s of --minutes 4 are left; run it with --cases numerics\n"
    assert re.search(late, text)
    assert "- `graph-bf16-16`: it is not a part of the smoke test on a CPU" in text
    # In the next run there is time, and memory.
    monkeypatch.setitem(cases, "numerics", case(lambda name, run: {"errors": {}, "over tolerance": ["x"]}, 1))
    monkeypatch.setitem(cases, "trainer", case(lambda name, run: {"maps": []}, 1))
    assert (
        gpu.main([*SMOKE, "--fused", "off", "--output", str(output), "--cases", "trainer", "numerics"]) == 1
    )  # over the tolerance
    found = read(output)["cases"]
    assert found["device-time"]["maps"] == []
    assert {name for name, result in found.items() if "failed" in result or "left out" in result} == {"graph-bf16-16"}
    # And in the one after it, none is left: what was measured stays.
    monkeypatch.setitem(cases, "trainer", case(fails, 1e9))
    gpu.main([*SMOKE, "--fused", "off", "--output", str(output), "--cases", "trainer"])
    assert read(output)["cases"]["trainer"]["maps"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "--device cpu needs --quick"),
        ([*SMOKE, "--cases", "trian-*"], "--cases trian-* matches none of: numerics, train-bf16-256"),
        ([*SMOKE, "--fused", "tritn"], "--fused: unknown way to fuse 'tritn'"),
        ([*SMOKE, "--write", "page.md"], "--write and --no-measuring need --output"),
        ([*SMOKE, "--minutes", "nan"], "--minutes must be above 0 and finite, got nan"),
        ([*SMOKE, "--minutes", "-1"], "--minutes must be above 0 and finite, got -1"),
        ([*SMOKE, "--output", "nowhere/x.jsonl"], "there is no folder nowhere to write x.jsonl to; make it first"),
        ([*SMOKE, "--output", "x.jsonl", "--write", "no.md"], "--write: no.md cannot be read (No such file"),
        ([*SMOKE, "--output", "x.jsonl", "--write", "other.md"], "--write: other.md has no <!-- measured: written by"),
        ([*SMOKE, "--output", "x.jsonl", "--no-measuring"], "no results at x.jsonl: leave --no-measuring out"),
        ([*SMOKE, "--output", "other.md"], "other.md has no results of this script; give another --output"),
    ],
)
def test_refuses(
    gpu: Any,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Before it measures, for which a GPU may be lent for minutes.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.md").write_text("{no results")
    monkeypatch.setattr(gpu, "_measure", lambda *arguments: pytest.fail("it measures"))
    with pytest.raises(SystemExit) as exit_:
        gpu.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_results_of_other_options_are_not_overwritten(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "CASES", {"x": gpu.Case(lambda name, run: {"maps": []}, 1)})
    found = smoke(gpu, tmp_path, "--fused", "off")
    assert json.loads(capsys.readouterr().out.partition('{\n  "x"')[0]) == {"about": found["about"]}
    output = tmp_path / "gpu.jsonl"
    found["about"]["smoke test"] = False
    found["about"]["hardware"]["gpu"] = "NVIDIA H100"
    write(output, found)
    with pytest.raises(SystemExit) as exit_:
        gpu.main([*SMOKE, "--fused", "off", "--output", str(output)])
    assert exit_.value.code == 2
    assert "(smoke test: False there, True now); give another --output, or delete it" in capsys.readouterr().err
    assert read(output) == found


def test_results_of_a_gpu_are_written_on_a_machine_without_one(gpu: Any, tmp_path: Path) -> None:
    page, output = tmp_path / "page.md", tmp_path / "gpu.jsonl"
    page.write_text(PAGE)
    facts = {"gpu": "NVIDIA H100", "cuda": "13.0", "cudnn": 91900, "triton": "3.8.0", "torch": "2.14.1"}
    facts |= {"torchvision": "0.29", "timm": "1.0", "senet": "0.1", "processor": "", "machine": "x86_64"}
    about = {"device": "cuda", "smoke test": False, "fused": "auto", "backend": "triton", "hardware": facts}
    write(output, {"about": about, "cases": {"trainer": {"left out": "no time"}}})
    assert gpu.main(["--no-measuring", "--output", str(output), "--write", str(page)]) == 0
    assert "NVIDIA H100; PyTorch 2.14.1, CUDA 13.0, cuDNN 91900, Triton 3.8.0" in page.read_text()


def test_a_device_that_is_lost_fails_its_case_and_no_more(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    case = gpu.Case(lambda name, run: {"maps": []}, 1)
    found = gpu._run("device-time", case, SimpleNamespace(device="cuda"))
    assert found["failed"] == "RuntimeError: CUDA error: an illegal memory access was encountered"


def test_without_kernels_a_gpu_has_no_second_baseline() -> None:
    networks = import_module("gpu_cases.networks")
    sides = networks.Networks(True, "auto", None).sides(("plain", "plain fused", "ours"))
    assert [side.name for side in sides] == ["resnet18", "se_resnet18"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refuses_to_measure_without_a_gpu(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "PyTorch finds no GPU here; --device cpu --quick tries this script out" in capsys.readouterr().err


def test_errors_beyond_rounding_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = import_module("gpu_cases.numerics")
    ours = numerics._ours

    def wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        found = ours(*arguments)
        found["d fc2.bias"] = found["d fc2.bias"] * (float("nan") if arguments[2] == "float16" else 1.1)
        return found

    monkeypatch.setattr(numerics, "_ours", wrong)
    over = numerics.numerics("cpu", True)["over tolerance"]
    assert [line.partition(":")[0] for line in over] == [
        f"{dtype}, {layout}, d fc2.bias" for dtype in numerics.TOLERANCES for layout in numerics.LAYOUTS
    ]
    assert over[-1].endswith(": nan")


def test_nvidias_form_is_the_papers_equations() -> None:
    networks = import_module("gpu_cases.networks")
    torch.manual_seed(0)
    model = senet.create_model("resnet50", num_classes=4).eval()
    unit = model.layer1[1]
    form = networks.AddcmulUnit(unit).eval()
    x = torch.randn(2, 256, 5, 5)
    y = unit.bn3(unit.conv3(F.relu(unit.bn2(unit.conv2(F.relu(unit.bn1(unit.conv1(x))))))))
    hidden = F.relu(F.linear(y.mean((2, 3)), form.squeeze.weight.flatten(1), form.squeeze.bias))
    gate = torch.sigmoid(F.linear(hidden, form.expand.weight.flatten(1), form.expand.bias))
    torch.testing.assert_close(form(x), F.relu(x + y * gate[:, :, None, None]))
    assert form.squeeze.out_channels == 16


def test_all_networks_have_the_size_of_their_peers() -> None:
    networks = import_module("gpu_cases.networks")
    names = ("plain", "plain fused", "timm plain", "ours", "timm", "insert", "addcmul")
    sides = networks.Networks(False, "auto", "triton").sides(names)
    assert [side.fused for side in sides] == ["off", "triton", "off", "auto", "off", "auto", "off"]
    sizes = [sum(parameter.numel() for parameter in side.build().parameters()) for side in sides]
    assert sizes == [25_557_032] * 3 + [28_088_024] * 4


def test_speeds_of_kernels_are_shares_of_a_copys(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = import_module("gpu_cases.layers")
    monkeypatch.setattr(layers, "_kernels", lambda layer, device: {"reduce": 2.0, "gates": 1.0})
    monkeypatch.setattr(layers, "_seconds", lambda work, device: 1e-6)
    (entry,) = layers.device_time("cpu", small=True)
    size = 2 * 8 * 4 * 4 * 2  # bytes of the map
    assert entry["copy GB/s"] == pytest.approx(2 * size / 1e-6 / 1e9)
    assert entry["kernels"]["reduce"]["GB/s"] == pytest.approx(4 * size / 2e-6 / 1e9)
    assert entry["kernels"]["reduce"]["of copy"] == pytest.approx(1.0)
    assert entry["kernels"]["gates"]["of copy"] is None


def test_a_compiled_case_has_fewer_networks_where_time_is_short(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        gpu, "compare", noting(asked, lambda sides, *_, **__: [side.name for side in sides], lambda *_, **__: {})
    )
    networks = import_module("gpu_cases.networks").Networks(True, "auto", "aten")
    monkeypatch.setattr(networks, "build", lambda name: nn.Identity())
    case = gpu.steps(gpu.PAIRS, dtype="float32", batch=128, compile=True)
    for left in (1000, 150):
        case(
            "compiled",
            SimpleNamespace(device="cpu", quick=True, networks=networks, seconds_left=lambda left=left: left),
        )
    assert asked[0] == ["resnet18", "se_resnet18", "timm/resnet18", "timm/seresnet18"]
    assert asked[1] == ["resnet18", "se_resnet18"]
