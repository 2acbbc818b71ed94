"""Exported files run as modules: the same numbers as the network, for any batch, and errors that name the file."""

import copy
import io
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import senet
from senet.deployment.engines import is_exported
from senet.deployment.engines.openvino_engine import INTERRUPTED
from senet.utils.errors import ModelFileError
from tests.deployment.exported_files import FORMATS, PREPROCESSING, metadata, tiny, write, write_pixels

each_format = pytest.mark.parametrize("suffix", FORMATS)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def close(found: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


@each_format
@pytest.mark.parametrize(("batch", "opened"), [(None, None), (None, 2), (2, None)])
def test_any_batch_gives_the_numbers_of_the_network(
    tmp_path: Path, suffix: str, batch: int | None, opened: int | None
) -> None:
    """Also one that a fixed batch does not divide, and one of a single image."""
    model = senet.load_exported(write(tmp_path / f"tiny{suffix}", batch), threads=1, batch=opened)
    for count in (1, 2, 5):
        close(model(images(count)), tiny()(images(count)))
    assert not model.training
    assert model.num_classes == 2


@each_format
def test_metadata_become_attributes(tmp_path: Path, suffix: str) -> None:
    model = senet.load_exported(write(tmp_path / f"tiny{suffix}", about=metadata()), threads=1)
    assert isinstance(model, senet.ExportedNetwork)
    assert model.format == {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}[suffix]
    assert (model.precision, model.classes, model.preprocessing) == ("fp32", ("cat", "dog"), PREPROCESSING)
    assert model.pretrained_cfg == tiny().pretrained_cfg
    plain = senet.load_exported(write(tmp_path / f"other{suffix}"), threads=1)
    assert (plain.precision, plain.classes, plain.preprocessing, plain.pretrained_cfg) == (None, None, None, None)


@each_format
def test_copies_and_pickles_open_the_file_again(tmp_path: Path, suffix: str) -> None:
    model = senet.load_exported(write(tmp_path / f"tiny{suffix}"), threads=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(other(images(1)), tiny()(images(1)))


def test_inputs_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.onnx", batch=2)
    model = senet.load_exported(path, threads=1)
    close(model(image=images(2)), tiny()(images(2)))
    close(model(images(2).double()), tiny()(images(2)))
    for given, error, message in (
        (
            torch.zeros(2, 3, 9, 8),
            ValueError,
            r"image of .*tiny.onnx has the shape \(2, 3, 8, 8\) float32, got \(2, 3, 9",
        ),
        (torch.zeros(3, 8, 8), ValueError, r"has the shape \(2, 3, 8, 8\) float32, got \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, "takes batches of 2, got 0"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), TypeError, r"is \(2, 3, 8, 8\) float32, got int64"),
        ([1.0], TypeError, "must be a tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            model(given)
    for args, named in (((), {}), ((images(2), images(2)), {}), ((), {"x": images(2)})):
        with pytest.raises(ValueError, match=r"takes 1 input\(s\) \(image\), got"):
            model(*args, **named)
    with pytest.raises(ValueError, match="is an exported network, for inference only"):
        model.train()
    assert model.eval() is model


def two_heads(path: Path, batch: int | str) -> Path:
    """Two inputs, their sum, and the sum of the first over the batch."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("ReduceSum", ["a"], ["total"], keepdims=0),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in ("a", "b", "sum")]
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "two", values[:2], [values[2], total])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    model = senet.load_exported(two_heads(tmp_path / "two.onnx", "n"), threads=1)
    a, b = torch.ones(3, 2), torch.arange(6.0).view(3, 2)
    for found in (model(a, b), model(a, b=b)):
        assert isinstance(found, tuple)
        close(found[0], a + b)
        close(found[1], a.sum())
    assert model.num_classes == 0
    fixed = senet.load_exported(two_heads(tmp_path / "fixed.onnx", 2), threads=1)
    with pytest.raises(ValueError, match="takes batches of 2, got 3; its output total cannot be split"):
        fixed(a, b)


def test_a_graph_that_normalizes_takes_pixels(tmp_path: Path) -> None:
    """8-bit pixels (N, H, W, C), or those of `senet.evaluate`, which normalizes to the same numbers."""
    write_pixels(tmp_path / "pixels.onnx")
    network = senet.load_exported(tmp_path / "pixels.onnx", threads=1)
    given = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = given.amax((2, 3)).float()
    from senet.data import Preprocessing

    assert network.pretrained_cfg is not None
    close(network(given.permute(0, 2, 3, 1)), expected)
    close(network(Preprocessing.of(network.pretrained_cfg).normalize(given)), expected)
    with pytest.raises(ValueError, match="normalizes images itself: give pixels of 0 to 255"):
        network(PREPROCESSING.normalize(given))


@pytest.mark.parametrize(
    ("xml", "weights", "reason"),
    [
        (lambda text: text[: len(text) // 2], None, "it or a.bin is damaged: .*; export it again"),
        (lambda text: b"", None, "it or a.bin is damaged: .*; export it again"),
        (None, b"1", "it or a.bin is damaged: Incorrect weights in bin file!; export it again"),
        (lambda text: INTERRUPTED.encode(), None, "its export was interrupted, and it is incomplete; export it again"),
    ],
    ids=["cut", "empty", "weights", "interrupted"],
)
def test_damaged_files_of_openvino(
    tmp_path: Path, xml: Callable[[bytes], bytes] | None, weights: bytes | None, reason: str
) -> None:
    path = write(tmp_path / "a.xml")
    if xml is not None:
        path.write_bytes(xml(path.read_bytes()))
    if weights is not None:
        path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(ModelFileError, match=f"^cannot read the exported network {path}: {reason}$"):
        senet.load_exported(path)


def test_bad_files(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.xml")
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelFileError, match="tiny.xml lacks its weights tiny.bin: keep both files in one folder"):
        senet.load_exported(path)
    for suffix in FORMATS:
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(b"\x08\x01 no model")
        damaged.with_suffix(".bin").write_bytes(b"")
        with pytest.raises(ModelFileError, match=rf"cannot read the exported network .*damaged\{suffix}: "):
            senet.load_exported(damaged)
        with pytest.raises(ModelFileError, match="no file at"):
            senet.load_exported(tmp_path / f"missing{suffix}")
    with pytest.raises(ModelFileError, match=r"is no exported network: expected a file \.onnx, \.xml, \.pt2"):
        senet.load_exported(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="threads must be 1 or more, got 0"):
        senet.load_exported(path, threads=0)
    for options in ({"threads": "2"}, {"batch": 1.5}):
        (name, value), *_ = options.items()
        with pytest.raises(TypeError, match=rf"{name} must be an integer, got {value!r}"):
            senet.load_exported(path, **options)
    with pytest.raises(TypeError, match=r"path must be a path \(str or os.PathLike\), got 3"):
        senet.load_exported(3)
    assert not is_exported("a.safetensors")


def test_an_unknown_opset(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "tiny.onnx"))
    model.opset_import[0].version = 999
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(ModelFileError, match="cannot read the exported network .*new.onnx: .*pset 999"):
        senet.load_exported(tmp_path / "new.onnx")


def test_a_truncated_file(tmp_path: Path) -> None:
    for suffix in FORMATS:
        path = write(tmp_path / f"tiny{suffix}")
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ModelFileError, match=f"cannot read the exported network .*tiny{suffix}: "):
            senet.load_exported(path)


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("entry", ["weights", "sample_inputs"])
def test_a_file_of_torch_export_runs_no_code(tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, touched, content = write(tmp_path / "tiny.pt2"), tmp_path / "touched", io.BytesIO()
    torch.save(Touch(touched), content)
    with ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w") as archive:
        for name, value in entries.items():
            if entry == "weights" and name.endswith("model_weights_config.json"):
                value = value.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b'"use_pickle": true' in value
            archive.writestr(name, content.getvalue() if f"/{entry}/" in name and "json" not in name else value)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # of the user, for other files
    with pytest.raises(ModelFileError, match="cannot read the exported network .*tiny.pt2: "):
        senet.load_exported(path)
    assert not touched.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(("suffix", "library"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_missing_library_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str
) -> None:
    path = write(tmp_path / f"tiny{suffix}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"tiny{suffix} requires {library} \(.+\): pip install .*deploy"):
        senet.load_exported(path)
