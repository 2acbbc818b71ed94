"""`senet bench --engine`: networks in engines, each in a process of its own, and what is refused before."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.benchmark.engine_process import Job
from senet.benchmark.engines import EngineProcess, prepare
from senet.benchmark.exported_files import entries_of_files
from senet.benchmark.networks import without_se
from senet.benchmark.timing import alternate
from senet.graph import find_se
from tests.cli.helpers import invoke, refuses
from tests.deployment.exported_files import metadata, write, write_pixels


def test_turns_alternate_and_their_seconds_are_those_returned() -> None:
    calls: list[tuple[int, int]] = []

    def turn(side: int, steps: int) -> float:
        calls.append((side, steps))
        return (0.05, 0.1)[side]

    times = alternate(turn, 2, rounds=4)
    assert times.seconds.tolist() == [[0.05, 0.1]] * 4
    assert times.steps == 2  # 0.1 seconds a turn of the faster one
    measured = [side for side, steps in calls if steps == 2]
    assert measured == [0, 1, 1, 0, 1, 0, 0, 1]


@pytest.mark.slow
def test_exported_files_run_in_processes_of_their_own(tmp_path: Path) -> None:
    """Each in its engine and precision, with the batch that one of them fixes."""
    model, against = write(tmp_path / "a.onnx", about=metadata(precision="int8")), write(tmp_path / "b.xml", batch=3)
    result = invoke("bench", model, "--against", against, "--rounds", 6, "--threads", 1, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["conclusive"] else 1)
    assert (found["engine"], found["batch"], found["size"], found["threads"]) == ("onnxruntime", 3, 8, 1)
    assert [(side["name"], side["engine"], side["precision"]) for side in found["sides"]] == [
        (str(model), "onnxruntime", "int8"),
        (str(against), "openvino", None),
    ]
    first, second = found["sides"]
    assert first["images_per_second"] == pytest.approx(3 / first["seconds"])
    assert first["ratio"]["rounds"] == found["rounds"] == 6
    assert first["ratio"]["quartiles"][0] <= first["ratio"]["median"] <= first["ratio"]["quartiles"][1]
    assert second["ratio"] is None
    assert first["seconds"] > 0
    assert found["hardware"]["onnxruntime"]
    assert found["hardware"]["openvino"]


@pytest.mark.parametrize(
    ("batches", "given", "shape"),
    [
        ((None, None), (None, None), (1, 3, 8, 8)),
        ((None, 4), (None, None), (4, 3, 8, 8)),
        ((None, 4), (4, 8), (4, 3, 8, 8)),
        ((None, None), (5, "8x8"), (5, 3, 8, 8)),
    ],
)
def test_images_of_exported_files(tmp_path: Path, batches: Any, given: Any, shape: tuple[int, ...]) -> None:
    files = [write(tmp_path / f"{name}.onnx", batch) for name, batch in zip("ab", batches, strict=True)]
    batch, size = given
    entries = entries_of_files(*files, engine=None, batch=batch, size=size, threads=1)
    assert [entry.job.shape for entry in entries] == [shape, shape]


def test_a_file_whose_graph_normalizes_gets_pixels_of_its_crop(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "pixels.onnx")
    for size in (None, "6x4"):
        first, _ = entries_of_files(path, path, engine="onnxruntime", batch=2, size=size, threads=1)
        assert first.job.shape == (2, 3, *((8, 8) if size is None else (6, 4)))
        logits: Any = first.job.open()()
        assert logits.shape == (2, 3)


def test_files_of_other_images(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1.onnx", batch=1), write(tmp_path / "2.onnx", batch=2)
    refuses(r"1.onnx takes \(1, 3, 8, 8\) float32, and .*2.onnx .*: export both for", "bench", one, "--against", other)
    same = ("bench", one, "--against", one)
    refuses("take 1 images, got 4: leave --batch out, or export both with --dynamic", *same, "--batch", 4)
    refuses("take 8 pixels, got 16: leave --size out, or export both with --dynamic", *same, "--size", "8x16")
    refuses(
        "runs in onnxruntime, got --engine openvino: leave it out, or export the network", *same, "--engine", "openvino"
    )
    refuses("compared with another one, got resnet20: export", "bench", one, "--against", "resnet20")


def test_an_engine_that_does_not_run_the_network_is_named(tmp_path: Path) -> None:
    job = Job("onnxruntime", str(write(tmp_path / "a.onnx")), (1, 3, 9, 9), 1)
    with pytest.raises(ValueError, match=r"onnxruntime cannot run a on \(1, 3, 9, 9\): ValueError: the input image of"):
        EngineProcess("a", job)


def test_own_se_of_another_library_is_replaced_by_the_identity() -> None:
    import timm

    model = timm.create_model("efficientnet_b0", pretrained=False).eval()
    name, twin = without_se("timm/efficientnet_b0", model)
    assert name == "timm/efficientnet_b0 without SE"
    assert find_se(twin) == []
    units = find_se(model)
    assert len(units) == 16
    assert isinstance(twin.get_submodule(units[0].name), nn.Identity)
    own, plain = without_se("se_resnet20", senet.create_model("se_resnet20"))
    assert own == "resnet20"
    assert find_se(plain) == []
    with pytest.raises(ValueError, match="Linear has no SE, so it has no plain twin"):
        without_se("Linear", nn.Linear(1, 1))


@pytest.mark.parametrize("deployed", [True, False])
def test_eager_networks_are_sent_as_they_are_or_deployed(tmp_path: Path, deployed: bool) -> None:
    model = senet.create_model("se_resnet20", num_classes=2).eval()
    path = prepare(model, "eager", tmp_path / "a", size=(16, 16), batch=2, deployed=deployed)
    sent: Any = torch.load(path, weights_only=False)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(sent(images), model(images), rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, nn.BatchNorm2d) for module in sent.modules()) is not deployed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["resnet20", "--engine", "eager"], "resnet20 has no SE, so it has no plain twin"),
        (["se_resnet20", "--engine", "tvm"], "unknown --engine 'tvm'"),
        (["se_resnet20", "--engine", "eager", "--mode", "train"], "on the CPU: leave --mode train out"),
        (["se_resnet20", "--engine", "eager", "--compile"], "leave --compile out"),
        (["se_resnet20", "--engine", "eager", "--dtype", "bfloat16"], "leave --dtype bfloat16 out"),
        (["se_resnet20", "--engine", "eager", "--batch", "0"], "batch must be 1 or more, got 0"),
        (
            ["a.onnx"],
            "a.onnx is an exported file, which is compared with another one: .* name that file with --against",
        ),
        (["se_resnet20", "--engine", "onnxruntime", "--against", "a.onnx"], "export both, or none"),
    ],
)
def test_refuses(options: list[str], message: str) -> None:
    refuses(message, "bench", *options)
