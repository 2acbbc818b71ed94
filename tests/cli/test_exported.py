"""Exported files on the command line: the figures of the network, and refusals."""

import sys
from pathlib import Path

import pytest

import senet
from tests.cli.helpers import answer, refuses
from tests.deployment.exported_files import FORMATS, metadata, tiny, write


@pytest.mark.parametrize(("suffix", "batch"), [(".onnx", 1), (".xml", None), (".pt2", 3)])
def test_evaluate_and_predict_give_the_figures_of_the_network(
    data: Path, tmp_path: Path, suffix: str, batch: int | None
) -> None:
    """Also if the batch of the file is fixed, to another one than that of the command."""
    path, model = write(tmp_path / f"tiny{suffix}", batch, metadata()), tiny()
    found = answer("evaluate", path, "--data", data)
    expected = senet.evaluate(model, str(data))
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert (found["top1_error"], found["images"]) == (expected.top1_error, 4)
    image = data / "val" / "dog" / "0.png"
    (prediction,) = answer("predict", path, image)
    (by_network,) = senet.predict(model, [image])
    assert prediction["classes"] == by_network.classes
    assert prediction["probabilities"] == pytest.approx(by_network.probabilities, rel=1e-5)


def test_refuses(data: Path, tmp_path: Path) -> None:
    path, foreign = write(tmp_path / "tiny.onnx", about=metadata()), write(tmp_path / "foreign.onnx")
    refuses("ExportedNetwork has no pretrained_cfg", "evaluate", foreign, "--data", data)
    refuses("leave out --network, --set and --weights-entry", "evaluate", path, "--data", data, "--network", "resnet20")
    refuses("which only senet evaluate, predict and bench run", "gates", path, "--data", data, "-o", tmp_path / "g")
    write(tmp_path / "tiny.xml").with_suffix(".bin").unlink()
    refuses("tiny.xml lacks its weights tiny.bin", "predict", tmp_path / "tiny.xml", data)
    for suffix in FORMATS:
        refuses(f"no file at .*missing{suffix}", "evaluate", tmp_path / f"missing{suffix}", "--data", data)
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(b"no model")
        damaged.with_suffix(".bin").write_bytes(b"")
        refuses(f"cannot read the exported network .*damaged{suffix}", "evaluate", damaged, "--data", data)


def test_a_missing_engine(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = write(tmp_path / "tiny.onnx", about=metadata())
    refuses(r"tiny.onnx requires onnxruntime \(.+\): pip install .*deploy", "evaluate", path, "--data", data)
