import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import openvino
import openvino.opset8 as ov
import pytest

from senet.data import Preprocessing
from senet.deployment import metadata
from senet.deployment.metadata import Metadata
from senet.utils.errors import ModelFileError

FULL = Metadata(
    model='se_"resnet20"',
    precision="int8",
    classes=("cat", "Käfer", "<a & b>", "it's", ""),
    preprocessing=Preprocessing((40, 36), 32, (0.1, 0.2, 1 / 3), (0.25,) * 3, "bicubic"),
    takes_pixels=True,
    outputs=("logits", "maps"),
)
EMPTY = Metadata(model="Net", precision="fp32")
both = pytest.mark.parametrize("given", [FULL, EMPTY], ids=["full", "empty"])


@both
def test_onnx_keeps_it(given: Metadata) -> None:
    model = onnx.ModelProto()
    other = model.metadata_props.add()
    other.key, other.value = "author", "me"
    metadata.write_onnx(model, EMPTY)
    metadata.write_onnx(model, given)  # replaces it
    read = onnx.ModelProto.FromString(model.SerializeToString())
    props = {prop.key: prop.value for prop in read.metadata_props}
    assert len(props) == len(read.metadata_props) == 7
    session = SimpleNamespace(get_modelmeta=lambda: SimpleNamespace(custom_metadata_map=props))
    assert metadata.read_onnx(session, "a.onnx") == given


@both
def test_openvino_keeps_it(given: Metadata, tmp_path: Path) -> None:
    x = ov.parameter([1], name="x")
    model = openvino.Model([ov.relu(x)], [x], "net")
    metadata.write_openvino(model, given)
    openvino.save_model(model, tmp_path / "a.xml")
    assert metadata.read_openvino(openvino.Core().read_model(tmp_path / "a.xml"), "a.xml") == given


@both
def test_torch_keeps_it(given: Metadata) -> None:
    assert metadata.read_torch(metadata.write_torch(given) | {"other": "text"}, "a.pt2") == given


def test_files_of_earlier_versions_have_no_names_of_outputs() -> None:
    entries = FULL.entries()
    del entries["senet.outputs"]
    assert Metadata.of(entries, "a") == replace(FULL, outputs=None)


def test_files_of_others_have_none() -> None:
    assert Metadata.of({}, "a") is None
    assert Metadata.of({"author": "me"}, "a") is None
    assert metadata.read_torch({"senet.model": ""}, "a") is None  # asked for, and not there


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("precision", "fp8", "unknown precision 'fp8'"),
        ("model", 3, "model must be text"),
        ("classes", "cat", "classes must be a list of names"),
        ("classes", [1], "classes must be a list of names"),
        ("preprocessing", {"resize": 8, "mean": [0.5], "std": [1]}, "lacks 'takes_pixels'"),
        ("preprocessing", 8, "preprocessing must be an object, or null, got 8"),
        ("preprocessing", {"mean": 0.5}, "mean must be a list of numbers, got 0.5"),
    ],
)
def test_damaged_metadata_names_the_file_and_the_reason(key: str, value: object, reason: str) -> None:
    entries = FULL.entries() | {f"senet.{key}": json.dumps(value)}
    with pytest.raises(ModelFileError, match=rf"^a\.onnx has invalid metadata: .*{reason}"):
        Metadata.of(entries, "a.onnx")
    with pytest.raises(ModelFileError, match=f"it lacks 'senet.{key}'"):
        Metadata.of({name: text for name, text in entries.items() if name != f"senet.{key}"}, "a.onnx")
    with pytest.raises(ModelFileError, match="not JSON"):
        Metadata.of(entries | {f"senet.{key}": "{"}, "a.onnx")


@pytest.mark.parametrize("change", [{"crop": 0}, {"takes_pixels": 1}, {"mean": [2, 2, 2]}, {"odd": 1}, {"mean": 1}])
def test_damaged_preprocessing_is_an_error(change: dict[str, object]) -> None:
    stated = json.loads(FULL.entries()["senet.preprocessing"])
    with pytest.raises(ModelFileError, match="a has invalid metadata"):
        Metadata.of(FULL.entries() | {"senet.preprocessing": json.dumps(stated | change)}, "a")
