"""The authors' binary files: OpenCV, which knows nothing of this package, runs the same file."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import senet
from senet.data.preprocessing import Preprocessing
from senet.models import BNInception, BNInceptionSpec
from senet.models.bn_inception import InceptionSpec
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint
from tests.helpers import assert_close
from tests.slow import fast_if
from tests.weights.caffe_files import Net, inception, net_parameter, residual

SIZE = 96


def by_opencv(prototxt: Path, caffemodel: Path, pixels: np.ndarray) -> torch.Tensor:
    """The logits of an image (H, W, 3) in RGB, which the file takes as BGR less its mean."""
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    net.setInput((pixels[:, :, ::-1] - np.float32([104, 117, 123])).transpose(2, 0, 1)[None])
    return torch.from_numpy(net.forward("classifier").copy())


def normalized(model: torch.nn.Module, pixels: np.ndarray) -> torch.Tensor:
    """As this package gives images to a network, by what the network says of them."""
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()) / 255 - mean) / std


@pytest.fixture
def pixels() -> np.ndarray:
    """Of low contrast: with random weights, larger values saturate gates, and no digit of float32 would be left."""
    return (np.float32([123, 117, 104]) + np.random.default_rng(3).normal(0, 2, (SIZE, SIZE, 3))).astype(np.float32)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "units", "name"),
    [
        ("resnet", (1, 2, 1, 1), "se_tiny50"),
        ("resnext", (1, 2, 1, 1), "se_tinyx50"),
        ("senet154", (2, 1, 1, 1), "se_tiny154"),
    ],
)
@fast_if(lambda kind: kind != "senet154")
def test_logits_are_those_of_opencv(
    kind: str, units: tuple[int, ...], name: str, tmp_path: Path, pixels: np.ndarray
) -> None:
    files = residual(units, kind).write(tmp_path, SIZE)
    model = senet.create_model(name, weights=files[1]).eval()
    assert model.num_classes == 5
    assert model.weights_report.covered == 100
    assert model.weights_report.format == "caffe"
    assert_close(model(normalized(model, pixels)), by_opencv(*files, pixels), 1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_bn_inception(tmp_path: Path, pixels: np.ndarray) -> None:
    modules = {
        "3a": InceptionSpec(64, 64, 64, 64, 96, 32),
        "3c": InceptionSpec(0, 128, 160, 64, 96, 0, pool="max", stride=2),
        "5b": InceptionSpec(32, 32, 64, 32, 64, 32, pool="max"),
    }
    files = inception(modules).write(tmp_path, SIZE)
    model = BNInception(BNInceptionSpec(modules=tuple(modules.items())), num_classes=5)
    model.pretrained_cfg = senet.create_model("bn_inception").pretrained_cfg
    senet.insert(model, init="paper")
    assert load_weights(model, files[1]).covered == 100
    model.eval()
    assert_close(model(normalized(model, pixels)), by_opencv(*files, pixels), 1e-5)


def test_preprocessing_is_the_authors(tmp_path: Path) -> None:
    files = residual((1, 2, 1, 1), "resnet").write(tmp_path, SIZE)
    model = senet.create_model("se_tiny50", weights=files[1])
    assert model.pretrained_cfg["mean"] == (123 / 255, 117 / 255, 104 / 255)
    assert model.pretrained_cfg["std"] == (1 / 255,) * 3
    assert Preprocessing.of(model.pretrained_cfg).std == model.pretrained_cfg["std"]
    import timm

    assert timm.data.resolve_model_data_config(model)["std"] == (1 / 255,) * 3


def test_a_stride_elsewhere_is_refused(tmp_path: Path) -> None:
    files = residual((1, 2, 1, 1), "resnet").write(tmp_path, SIZE)
    with pytest.raises(
        ModelFileError, match=r"\(caffe\) is for a network with stride_in='conv1', not stride_in='conv2'"
    ):
        senet.create_model("se_tiny50", weights=files[1], stride_in="conv2")
    with pytest.raises(ModelFileError, match="pool='ceil', and this one has pool='pad'"):
        load_weights(senet.create_model("se_tiny50", pool="pad", num_classes=5), files[1])


def test_other_forms_of_blobs(tmp_path: Path) -> None:
    """Shapes of before 2015, doubles, and a factor of zero, with which Caffe's statistics are zero."""
    net = net_parameter()
    layer = net.layer.add(name="classifier", type="InnerProduct")
    old = layer.blobs.add(num=1, channels=1, height=2, width=3)
    old.data.extend(range(6))
    double = layer.blobs.add(num=1, channels=1, height=1, width=2)
    double.double_data.extend([0.5, 0.25])
    norm = net.layer.add(name="a/bn", type="BatchNorm")
    for values in ([1.0, 2.0], [3.0, 4.0], [0.0]):
        blob = norm.blobs.add(data=values)
        blob.shape.dim.append(len(values))
    (tmp_path / "old.caffemodel").write_bytes(net.SerializeToString())
    tensors = open_checkpoint(tmp_path / "old.caffemodel").contents.tensors
    assert torch.equal(tensors["classifier.weight"], torch.arange(6.0).view(2, 3))
    assert torch.equal(tensors["classifier.bias"], torch.tensor([0.5, 0.25]))
    assert torch.equal(tensors["a/bn.running_mean"], torch.zeros(2))
    assert torch.equal(tensors["a/bn.running_var"], torch.zeros(2))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" * 9, b"cut"])
def test_refuses_what_is_none(content: bytes, tmp_path: Path) -> None:
    if content == b"cut":
        whole = residual((1,), "resnet")
        content = whole.message.SerializeToString()[:-7]
    (tmp_path / "a.caffemodel").write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a .caffemodel"):
        open_checkpoint(tmp_path / "a.caffemodel")
    with pytest.raises(ModelFileError, match="no file at"):
        open_checkpoint(tmp_path / "b.caffemodel")


def test_refuses_a_blob_of_a_wrong_size(tmp_path: Path) -> None:
    net = Net()
    net.layer("InnerProduct", "classifier", ["data"], "classifier", "", np.ones((2, 3)))
    net.message.layer[0].blobs[0].shape.dim[0] = 5
    (tmp_path / "a.caffemodel").write_bytes(net.message.SerializeToString())
    with pytest.raises(ModelFileError, match="cannot read layer classifier of"):
        open_checkpoint(tmp_path / "a.caffemodel")


def test_without_protobuf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.caffemodel").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    with pytest.raises(ImportError, match=r"pip install -e '.*\[caffe\]'"):
        open_checkpoint(tmp_path / "a.caffemodel")


def test_all_released_networks_by_name() -> None:
    """Each name of the authors' files is one here, and none is left over."""
    from senet.weights.checkpoint import translate
    from senet.weights.formats import identify
    from senet.weights.reading import Contents

    for kind, units, name in (("resnet", (3, 4, 6, 3), "se_resnet50"), ("senet154", (3, 8, 36, 3), "senet154")):
        with torch.device("meta"):
            model = senet.create_model(name)
        names = _released(kind, units)
        checkpoint = translate(
            Contents("file", dict.fromkeys(names, torch.zeros(1))), identify({n.rpartition(".")[0] for n in names})
        )
        wanted = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
        assert checkpoint.tensors.keys() == wanted


def _released(kind: str, units: tuple[int, ...]) -> list[str]:
    def norm(layer: str) -> list[str]:
        leaves = ("running_mean", "running_var", "weight", "bias")
        return [f"{layer}.weight", *(f"{layer}/bn.{leaf}" for leaf in leaves)]

    stems = {"resnet": ["conv1/7x7_s2"], "senet154": ["conv1_1/3x3_s2", "conv1_2/3x3", "conv1_3/3x3"]}
    names = [name for stem in stems[kind] for name in norm(stem)]
    for stage, count in enumerate(units, 2):
        for number in range(1, count + 1):
            block = f"conv{stage}_{number}"
            layers = ["1x1_reduce", "3x3", "1x1_increase", *(["1x1_proj"] if number == 1 else [])]
            names += [name for layer in layers for name in norm(f"{block}_{layer}")]
            names += [f"{block}_1x1_{way}.{leaf}" for way in ("down", "up") for leaf in ("weight", "bias")]
    return [*names, "classifier.weight", "classifier.bias"]


def test_files_of_before_2015_are_named(tmp_path: Path) -> None:
    """Whose layers are the second field of the message."""
    (tmp_path / "old.caffemodel").write_bytes(b"\x12\x02\x22\x00")
    with pytest.raises(ModelFileError, match="is from Caffe before 2015; convert it with Caffe's upgrade_net"):
        open_checkpoint(tmp_path / "old.caffemodel")


def test_a_network_of_other_channels_keeps_its_own_preprocessing(tmp_path: Path) -> None:
    """Where all but the first layer is taken."""
    _, caffemodel = residual((1, 2, 1, 1), "resnet").write(tmp_path, SIZE)
    model = senet.create_model("se_tiny50", in_channels=1, num_classes=5)
    model.conv1 = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    before = model.pretrained_cfg["mean"]
    load_weights(model, caffemodel)
    assert model.pretrained_cfg["mean"] == before


@pytest.mark.parametrize("sizes", [(4, 4, 2), (4, 4, 0), (4, 3, 1)])
def test_batch_norm_of_other_sizes_names_file_and_layer(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    net = net_parameter()
    layer = net.layer.add(name="conv1/bn", type="BatchNorm")
    for size in sizes:
        blob = layer.blobs.add()
        blob.shape.dim.append(size)
        blob.data.extend([1.0] * size)
    path = tmp_path / "a.caffemodel"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(
        ModelFileError,
        match=r"cannot read layer conv1/bn of .*a\.caffemodel: .*as many means as variances and one factor",
    ):
        open_checkpoint(path)
