"""Bad inputs are errors that name the value and the remedy; no file is left, and an existing one is unchanged."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.data import Preprocessing
from senet.deployment.export import options, verification, writing
from senet.deployment.export.capture import capture
from senet.utils.errors import ExportError, MissingExampleError
from tests.cli.helpers import refuses
from tests.deployment.export.networks import DataDependent, Listed, TwoInputs, small

pytestmark = pytest.mark.usefixtures("traced")

IMAGES = [torch.randn(8, 3, 12, 12) for _ in range(2)]


def training() -> nn.Module:
    model = small()
    model.bn2.train()
    return model  # type: ignore[no-any-return]


def of_dtype() -> nn.Module:
    return small().half()  # type: ignore[no-any-return]


def without_cfg() -> nn.Module:
    model = small()
    del model.pretrained_cfg
    return model  # type: ignore[no-any-return]


def not_finite() -> nn.Module:
    model = small()
    nn.init.constant_(model.fc.bias, float("nan"))
    return model  # type: ignore[no-any-return]


def returning(value: Any) -> Callable[[], nn.Module]:
    class Returns(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return value

    return lambda: Returns().eval()


class Dropout(nn.Module):
    """A network with dropout that is active in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, training=True)


def wrapped() -> nn.Module:
    return nn.DataParallel(small()).eval()


# Network, name of the file, options, error, message.
CASES: dict[str, tuple[Callable[[], Any], str, dict[str, Any], type[Exception], str]] = {
    "no network": (lambda: "se_resnet20", "a.onnx", {}, TypeError, "expected a network.*'se_resnet20'"),
    "training mode": (training, "a.onnx", {}, ValueError, r"'bn2'.* training mode.*call \.eval\(\)"),
    "dtype": (of_dtype, "a.onnx", {}, ValueError, r"float16.*call model\.float\(\)"),
    "wrapped": (wrapped, "a.onnx", {}, ValueError, "DataParallel"),
    "wrong example": (
        small,
        "a.onnx",
        {"example": torch.randn(1, 4, 12, 12)},
        ValueError,
        r"does not run on the example \(1, 4, 12, 12\) float32.*give inputs as it takes them",
    ),
    "no example": (small, "a.onnx", {"example": "image"}, TypeError, "example must be a tensor.*got str"),
    "needs an example": (lambda: TwoInputs().eval(), "a.onnx", {}, MissingExampleError, "TwoInputs.*give example="),
    "returns no tensor": (
        returning("text"),
        "a.onnx",
        {"example": torch.ones(1)},
        ValueError,
        "returns a str without tensors",
    ),
    "text that PyTorch does not load": (
        returning((torch.ones(1), "cat")),
        "a.pt2",
        {"example": torch.ones(1)},
        ValueError,
        "returns the text 'cat', and a .pt2 file holds none: return tensors, or export .onnx",
    ),
    "complex numbers": (
        returning(torch.ones(1, dtype=torch.complex64)),
        "a.pt2",
        {"example": torch.ones(1)},
        ValueError,
        "returns complex numbers, .* return torch.view_as_real",
    ),
    "not finite": (not_finite, "a.onnx", {}, senet.NonFiniteError, "returns NaN or infinity; load other weights"),
    "unknown precision": (small, "a.onnx", {"precision": "fp8"}, ValueError, "unknown precision 'fp8'.*fp16"),
    "unknown format": (small, "a.onnx", {"format": "tflite"}, ValueError, "unknown format 'tflite'"),
    "suffix of no format": (small, "a.tflite", {}, ValueError, r"'.*a.tflite'.*expected one of \.onnx \(onnx\)"),
    "suffix of another format": (small, "a.xml", {"format": "onnx"}, ValueError, r"must end in \.onnx, got '.*a\.xml'"),
    "bf16 in ONNX": (
        small,
        "a.onnx",
        {"precision": "bf16"},
        ValueError,
        "'bf16' is not available in format onnx: ONNX",
    ),
    "bf16 in OpenVINO": (small, "a.xml", {"precision": "bf16"}, ValueError, "INFERENCE_PRECISION_HINT"),
    "int8 in torch": (small, "a.pt2", {"precision": "int8"}, ValueError, "torchao.*export onnx or openvino"),
    "unknown axis": (small, "a.onnx", {"dynamic": ["bach"]}, ValueError, "unknown dynamic axis 'bach'; did you mean"),
    "axis alone": (small, "a.onnx", {"dynamic": "batch"}, TypeError, "put it in a list"),
    "tolerance": (small, "a.onnx", {"tolerance": float("nan")}, ValueError, "tolerance must be 0 or more.*got nan"),
    "axes that are no list": (
        small,
        "a.onnx",
        {"dynamic": None},
        TypeError,
        "must be a list of axes, got None",
    ),
    "tolerance in text": (small, "a.onnx", {"tolerance": "1e-3"}, TypeError, "tolerance must be a number, got '1e-3'"),
    "preprocessing of another type": (
        small,
        "a.onnx",
        {"preprocessing": {"mean": 0.5}},
        TypeError,
        "preprocessing must be a senet.data.Preprocessing, got dict",
    ),
    "rewrite in text": (small, "a.onnx", {"rewrite": "no"}, TypeError, "rewrite must be True or False, got 'no'"),
    "unknown option": (small, "a.onnx", {"opset": 18}, TypeError, "unknown option 'opset'"),
    "int8 without data": (
        small,
        "a.onnx",
        {"precision": "int8"},
        ValueError,
        "needs calibration data.*give calibration=",
    ),
    "calibration of another size": (
        small,
        "a.onnx",
        {"precision": "int8", "calibration": [torch.randn(16, 3, 32, 32)]},
        ValueError,
        r"calibration batch 0 has the shape \(16, 3, 32, 32\).*takes \(N, 3, 12, 12\)",
    ),
    "too few calibration images": (
        small,
        "a.xml",
        {"precision": "int8", "calibration": [torch.randn(2, 3, 12, 12)]},
        ValueError,
        "has 2 images.*give more",
    ),
    "calibration data in one tensor": (
        small,
        "a.onnx",
        {"precision": "int8", "calibration": torch.randn(16, 3, 12, 12)},
        TypeError,
        "put it in a list",
    ),
    "no such data": (
        small,
        "a.onnx",
        {"precision": "int8", "calibration": "nowhere"},
        senet.DataError,
        "nowhere",
    ),
    "a data set without preprocessing": (
        without_cfg,
        "a.onnx",
        {"precision": "int8", "calibration": "digits", "example": torch.randn(1, 3, 12, 12)},
        ValueError,
        "needs the preprocessing of Small.*give preprocessing=",
    ),
    "number of classes": (small, "a.onnx", {"classes": ["a", "b"]}, ValueError, "2 class names.* 3 classes"),
    "classes of no logits": (
        lambda: TwoInputs().eval(),
        "a.onnx",
        {"example": (torch.randn(2, 3, 8, 8), torch.randn(2, 6)), "classes": ["a"]},
        ValueError,
        "names of logits",
    ),
    "preprocessing of another size": (
        small,
        "a.onnx",
        {"example": torch.randn(1, 3, 12, 12), "preprocessing": Preprocessing(32, 28, (0.5,) * 3, (0.5,) * 3)},
        ValueError,
        r"makes images \(3, 28, 28\).*another crop",
    ),
    "nothing to normalize with": (
        without_cfg,
        "a.onnx",
        {"with_preprocessing": True, "example": torch.randn(1, 3, 12, 12)},
        ValueError,
        "needs mean and std.*give preprocessing=",
    ),
    "control flow": (
        lambda: DataDependent().eval(),
        "a.onnx",
        {"example": torch.randn(1, 3, 8, 8), "rewrite": False},
        senet.ExportError,
        "control flow depends on values of tensors.*torch.where or torch.cond",
    ),
    "no exact rewriting": (
        lambda: Listed().eval(),
        "a.onnx",
        {"example": torch.randn(1, 3, 8, 8)},
        ValueError,
        "Listed cannot be rewritten: .* rewrite=False exports the network as it is",
    ),
    "no folder": (small, "none/a.onnx", {}, OSError, "there is no folder"),
    "a folder": (small, "folder.onnx", {}, OSError, "is a folder"),
    "weights of another file": (small, "other.xml", {}, ValueError, "would replace .*other.bin.*choose another name"),
    "dropout in evaluation": (
        lambda: Dropout().eval(),
        "a.pt2",
        {"example": torch.randn(1, 3, 8, 8)},
        senet.ExportError,
        "Dropout returns something else each time it runs on the same input.*make it deterministic",
    ),
    "too large a difference": (
        small,
        "a.pt2",
        {"precision": "bf16", "tolerance": 1e-6},
        senet.ExportError,
        "differs from PyTorch by .* and 1e-06 is accepted for bf16",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_an_error_and_no_file_is_left(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build, file, given, error, message = CASES[name]
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "other.bin").write_bytes(b"weights of something else")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        senet.export(build(), tmp_path / file, **given)
    assert sorted(tmp_path.rglob("*")) == before
    assert "def forward" not in capfd.readouterr().err  # PyTorch's print of the graph
    assert (tmp_path / "other.bin").read_bytes() == b"weights of something else"


def test_a_path_of_another_type() -> None:
    with pytest.raises(TypeError, match=r"path must be a path \(str or os.PathLike\), got 3"):
        senet.export(small(), 3)


@pytest.mark.parametrize(
    "raised", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(143)]
)
def test_a_full_disk_or_a_signal_leaves_the_old_files(
    raised: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(captured: object, path: Path) -> None:
        path.write_bytes(b"half")
        path.with_suffix(".bin").write_bytes(b"half")
        raise raised

    monkeypatch.setitem(writing._WRITERS, "openvino", write)
    for file in ("a.xml", "a.bin"):
        (tmp_path / file).write_bytes(b"old")
    with pytest.raises(type(raised)):
        senet.export(small(), tmp_path / "a.xml")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.xml": b"old", "a.bin": b"old"}


def test_a_file_that_the_engine_does_not_load_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writing._WRITERS, "onnx", lambda captured, path: path.write_bytes(b"no network"))
    with pytest.raises(senet.ExportError, match="the exported file cannot be loaded"):
        senet.export(small(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def returns(output: torch.Tensor) -> verification.Run:
    """Return a function in place of an exported file, which returns the same for any inputs."""
    return lambda inputs: [output]


def test_a_file_that_computes_something_else_is_an_error() -> None:
    model, image = small(), torch.randn(2, 3, 12, 12)
    right = model(image).detach()
    for wrong, message in (
        (right[:, :2], r"shapes \[\(2, 2\)\], and the network \[\(2, 3\)\]"),
        (right * float("inf"), "returns NaN or infinity, and the network does not"),
    ):
        with pytest.raises(senet.ExportError, match=message):
            verification.compare(returns(wrong), model, [(image,)])
    assert verification.compare(returns(right.flip(1)), model, [(image,)]).top1 < 1  # type: ignore[operator]


def test_missing_packages_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"int8 in format openvino requires nncf: pip install .*\[deploy\]"):
        senet.export(small(), tmp_path / "a.xml", precision="int8", calibration=IMAGES)
    monkeypatch.setitem(sys.modules, "openvino", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r"format openvino requires openvino \(.+\): pip install .*\[deploy\]"):
        senet.export(small(), tmp_path / "a.xml")


def test_the_command_line_refuses(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    weights = ("--weights-format", "timm")
    refuses("give one of them", "export", "se_resnet20", "-o", out, "--format", "onnx", *weights)
    refuses(
        "--with-preprocessing has no effect with --weights-format",
        *("export", "se_resnet20", "-o", tmp_path / "a.pth", *weights, "--with-preprocessing"),
    )
    refuses("needs --weights-format timm or torchvision", "export", "se_resnet20", "-o", tmp_path / "a.safetensors")
    refuses("expected one of .onnx", "export", "se_resnet20", "-o", tmp_path / "a.tflite")
    refuses("unknown --precision 'fp8'", "export", "se_resnet20", "-o", out, "--precision", "fp8")
    refuses("unknown dynamic axis 'sizes'", "export", "se_resnet20", "-o", out, "--dynamic", "batch,sizes", status=2)
    refuses("unknown network 'se_resnet21'", "export", "se_resnet21", "-o", out)
    refuses("no file at", "export", tmp_path / "none.safetensors", "-o", out)
    refuses("there is no folder", "export", "se_resnet20", "-o", tmp_path / "none" / "a.onnx")
    assert not list(tmp_path.iterdir())


class FewImages(nn.Module):
    """A network that computes something else for more than four images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.conv(image)
        return maps.relu().mean((2, 3)) if image.shape[0] > 4 else maps.mean((2, 3))


def test_a_batch_with_a_limit_cannot_be_dynamic(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="batch of FewImages cannot be dynamic.* longer than 4; export it with a fix"):
        senet.export(FewImages().eval(), tmp_path / "few.onnx", torch.randn(2, 3, 8, 8), dynamic=["batch"])
    assert not list(tmp_path.iterdir())


class Scaled(nn.Module):
    """A network with an input that has no batch."""

    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        return (image * scale).sum((2, 3))


def test_an_input_without_a_batch_is_shown_by_several_images() -> None:
    model = Scaled().eval()
    with pytest.raises(ExportError, match="give an example of several images, which shows the inputs without a batch"):
        capture(model, (torch.randn(1, 3, 4, 4), torch.ones(1)), ["batch"])
    assert capture(model, (torch.randn(2, 3, 4, 4), torch.ones(1)), ["batch"]).range_constraints


class Positive(nn.Module):
    """A network whose output is as long as its values decide."""

    def forward(self, image: Tensor) -> Tensor:
        return image[image > 0]


def test_an_output_whose_length_depends_on_values_is_no_dynamic_axis() -> None:
    program = capture(Positive().eval(), (torch.randn(1, 2),))
    assert [one.upper for one in program.range_constraints.values()] == [2]


def test_calibration_images_fill_a_batch_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 calibration images are less than one batch of the file, 32 images"):
        senet.export(
            small(), tmp_path / "net.onnx", torch.randn(32, 3, 12, 12), calibration=[torch.randn(16, 3, 12, 12)]
        )
    report = senet.export(
        small(), tmp_path / "net.onnx", torch.randn(96, 3, 12, 12), calibration=[torch.randn(96, 3, 12, 12)]
    )
    assert report.comparison.inputs == 96
