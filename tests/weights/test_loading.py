"""What is loaded and what is refused; and that a network is as it was when it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import senet
from senet.models import create_model
from senet.nn.inserted_se import find_inserted_se
from senet.utils.errors import ModelFileError
from senet.weights import check_fit, load_weights
from tests.helpers import assert_close, randomise
from tests.slow import fast_if
from tests.weights.elsewhere import reference, write

X = (2, 3, 32, 32)


def refused(
    model: nn.Module, path: Path, message: str, error: type[Exception] = ModelFileError, **options: object
) -> None:
    """By this message, and the network is as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        load_weights(model, path, **options)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_report(tmp_path: Path) -> None:
    there, here, _ = reference("timm seresnet")
    path = write(there.state_dict(), tmp_path)
    report = load_weights(create_model(here, num_classes=5, stride_in="conv2", pool="pad"), path)
    assert (report.format, report.source, report.covered) == ("timm", str(path), 100)
    assert len(report.loaded) == len(there.state_dict())
    assert set(report.converted) == {key for key in report.loaded if ".se." in key}
    assert report.implied["stride_in"] == "conv2"
    assert report.implied["pool"] == "pad"
    assert report.implied["bias"] is True
    rows = {row.name: row for row in report.modules}
    assert list(rows) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert rows["layer2"].converted == 8
    assert sum(row.loaded for row in report.modules) == len(report.loaded)
    lines = str(report).splitlines()
    assert "which says" in lines[0]
    assert "stride_in='conv2'" in lines[0]
    assert lines[1].split() == ["module", "loaded", "converted", "missing", "unexpected", "parameters"]
    assert lines[9].split() == ["all", str(len(report.loaded)), "20", "0", "0", "100.00", "%"]
    assert lines[10].startswith("assumed, because the weights do not say it: ")
    assert len(lines) == 11


def test_stride_and_pool_are_part_of_the_function(tmp_path: Path) -> None:
    """The same names and shapes: torchvision has the stride in the 3x3 convolution and pads the pool."""
    path = write(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path)
    refused(
        create_model("resnet18", num_classes=3), path, "network with pool='pad', and this one has pool='ceil'.*build"
    )
    load_weights(create_model("resnet18", num_classes=3, pool="pad"), path)
    there, _, _ = reference("timm resnet")
    path = write(there.state_dict(), tmp_path)
    for options, which in (({"pool": "pad"}, "stride_in='conv2'"), ({"stride_in": "conv2"}, "pool='pad'")):
        refused(create_model("tiny50", num_classes=5, **options), path, which)
    with pytest.raises(ModelFileError, match="with stride_in='conv2', not stride_in='conv1'; leave stride"):
        create_model("tiny50", weights=path, stride_in="conv1")
    with pytest.raises(ModelFileError, match="with pool='pad', not pool='ceil'"):
        create_model("tiny50", weights=path, pool="ceil")
    legacy, here, _ = reference("cadene se_resnet")
    path = write(legacy.state_dict(), tmp_path)
    refused(create_model(here, num_classes=5, stride_in="conv2"), path, "stride_in='conv1', and this one has .*'conv2'")


def test_into_networks_of_other_libraries(tmp_path: Path) -> None:
    """What a network is is read off it, whoever built it."""
    there, _, _ = reference("timm seresnet")
    path = write(there.state_dict(), tmp_path)
    model = timm.models.resnet.ResNet(timm.models.resnet.Bottleneck, (1, 2, 1, 1), num_classes=5)
    senet.insert(model)
    refused(model, path, r"has no .*gain: .*init='paper'")
    model = senet.insert(senet.remove(model), init="paper").double().eval()
    load_weights(model, path)
    x = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    assert_close(model(x), there(x), 1e-9)
    legacy, _, _ = reference("cadene se_resnet")
    refused(model, write(legacy.state_dict(), tmp_path), "stride_in='conv1', and this one has stride_in='conv2'")
    # A network with SE of its own takes its library's weights as they are.
    own = timm.models.resnet.ResNet(
        timm.models.resnet.Bottleneck, (1, 2, 1, 1), num_classes=5, block_args={"attn_layer": "se"}
    )
    report = load_weights(own, write(there.state_dict(), tmp_path))
    assert report.converted == ()
    assert report.covered == 100


def test_pytorchcv_has_both_strides_under_the_same_names(tmp_path: Path) -> None:
    """So its weights are taken for seresnet50's, and those of seresnet50b where one says so."""
    there, here, _ = reference("pytorchcv seresnet")
    path = write(there.state_dict(), tmp_path)
    model = create_model(here, weights=path)
    assert model.spec.stride_in == model.weights_report.implied["stride_in"] == "conv1"
    model = create_model(here, weights=path, stride_in="conv2")
    assert model.spec.stride_in == "conv2"
    assert "stride_in" not in model.weights_report.implied


def test_preactivation_is_refused(tmp_path: Path) -> None:
    path = write(create_model("preresnet110").state_dict(), tmp_path)
    message = "network with preactivation=True, and this one has preactivation=False: the same tensors, but another"
    refused(create_model("resnet110"), path, message)
    with pytest.raises(ModelFileError, match=message):
        create_model("resnet110", weights=path)


def test_own_weights_have_no_stride_implied(tmp_path: Path) -> None:
    """A file of torch.save names modules of senet, which identifies the network."""
    model = randomise(create_model("tiny50", num_classes=3)).eval()
    path = write(model.state_dict(), tmp_path)
    loaded = create_model("tiny50", weights=path).eval()
    assert loaded.spec == model.spec
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))
    assert create_model("tiny50", weights=path, stride_in="conv2").spec.stride_in == "conv2"


def test_model_file_says_how_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = randomise(create_model("se_tiny50", num_classes=3, stride_in="conv2", gate="hard_sigmoid", stages=(3, 4)))
    model.pretrained_cfg["label_names"] = ["a", "b", "c"]
    senet.save(model, path)
    loaded = create_model("se_tiny50", weights=path).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model.eval()(x))
    assert [one.name for one in find_inserted_se(loaded)] == ["layer2.0.bn3", "layer2.1.bn3", "layer3.0.bn3"]
    refused(create_model("se_tiny50", num_classes=3, stages=(3, 4)), path, "stride_in='conv2', and this one has")
    other = create_model("se_tiny50", num_classes=3, stages=(3, 4), stride_in="conv2")
    refused(other, path, "SE with gate='hard_sigmoid' at layer2.0.bn3, and this network has gate='sigmoid'")
    with pytest.raises(ModelFileError, match="has SE with gate='hard_sigmoid', not gate='tanh'"):
        create_model("se_tiny50", weights=path, gate="tanh")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"placement": "pre"},
        {"placement": "post", "stages": 3},
        {"placement": "identity"},
        {"placement": "conv3x3", "bias": False},
        {"init": "identity"},
        {"reduction": 4},
        {"at": ["layer1.0", "layer3.2"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["se_resnet20", "se_preresnet110"])
@fast_if(lambda name, options: name == "se_resnet20" or options.get("placement") == "pre")
def test_bare_weights_say_where_se_stands(name: str, options: dict[str, object], tmp_path: Path) -> None:
    model = randomise(create_model(name, **options)).eval()
    path = write(dict(model.state_dict().items()), tmp_path)
    loaded = create_model(name, weights=path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(X)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "post"}, "has SE with placement='standard', not placement='post'"),
        ({"bias": True}, "has SE with bias=False, not bias=True"),
        ({"init": "identity"}, r"has no .*gain: .*init='paper'"),
    ],
)
def test_contradictions_about_se(options: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(create_model("se_resnet20", bias=False).state_dict(), tmp_path)
    with pytest.raises(ModelFileError, match=message):
        create_model("se_resnet20", weights=path, **options)


def test_a_gate_of_another_kind_is_refused(tmp_path: Path) -> None:
    there, here, _ = reference("timm seresnet")
    path = write(there.state_dict(), tmp_path)
    model = create_model(here, num_classes=5, stride_in="conv2", pool="pad", gate="tanh")
    refused(model, path, r"\(timm\) has SE with gate='sigmoid' at layer1.0.bn3, and this network has gate='tanh'")
    with pytest.raises(ModelFileError, match="has SE with squeeze='avg', not squeeze='max'"):
        create_model(here, weights=path, squeeze="max")


def test_missing_gates(tmp_path: Path) -> None:
    plain = randomise(create_model("resnet20")).eval()
    path = write(plain.state_dict(), tmp_path)
    model = create_model("se_resnet20", weights=path, missing="gates").eval()
    x = torch.randn(X)
    assert torch.equal(model(x), plain(x))
    assert len(model.weights_report.missing) == 9 * 5
    assert model.weights_report.covered < 100
    assert "missing: layer1.0.bn2.se.gain, " in str(model.weights_report)
    with pytest.raises(ModelFileError, match=r"36 missing .*these are plain weights: missing=.gates. loads them"):
        create_model("se_resnet20", weights=path)
    halved = create_model("se_resnet20", weights=path, missing="gates", init="paper").eval()  # by name, to compare
    assert len(halved.weights_report.missing) == 9 * 4
    assert torch.equal(senet.remove(halved)(x), plain(x))
    refused(create_model("se_resnet20"), path, "36 missing")
    refused(create_model("se_resnet20"), path, "requires SE that starts as identity", ValueError, missing="gates")
    for gate in ("relu", "hard_sigmoid"):
        model = senet.insert(create_model("resnet20"), gate=gate).eval()
        load_weights(model, path, missing="gates")
        assert torch.equal(model(x), plain(x))
    # Nothing else may be missing.
    short = {key: value for key, value in plain.state_dict().items() if key != "bn1.bias"}
    refused(senet.insert(create_model("resnet20")), write(short, tmp_path), r"1 missing \(bn1.bias\)", missing="gates")
    with pytest.raises(ValueError, match="unknown missing 'gate'; did you mean 'gates'"):
        load_weights(model, path, missing="gate")


def test_weights_with_gates_need_no_leave(tmp_path: Path) -> None:
    model = randomise(create_model("se_resnet20")).eval()
    path = write(model.state_dict(), tmp_path)
    loaded = create_model("se_resnet20", weights=path, missing="gates").eval()
    x = torch.randn(X)
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(ModelFileError, match="36 unexpected .*these weights have SE: use the network se_"):
        create_model("resnet20", weights=path)


def test_another_number_of_classes(tmp_path: Path) -> None:
    model = randomise(create_model("resnet20", num_classes=7)).eval()
    path = write(model.state_dict(), tmp_path)
    torch.manual_seed(5)
    fresh = create_model("resnet20", num_classes=4)
    torch.manual_seed(5)
    loaded = create_model("resnet20", weights=path, head=False, num_classes=4).eval()
    assert torch.equal(loaded.fc.weight, fresh.fc.weight)
    assert loaded.weights_report.missing == ("fc.weight", "fc.bias")
    x = torch.randn(X)
    assert torch.equal(
        loaded.forward_head(loaded.forward_features(x), True), model.forward_head(model.forward_features(x), True)
    )
    refused(
        create_model("resnet20"), path, r"2 of another shape \(fc.weight \(7, 64\), here \(10, 64\).*head=False keeps"
    )
    assert create_model("resnet20", weights=path, head=False).num_classes == 10
    headless = create_model("resnet20", weights=path, head=False, num_classes=0)
    assert headless.weights_report.covered == 100
    foreign = torchvision.models.mobilenet_v2(num_classes=3)
    path = write(torchvision.models.mobilenet_v2(num_classes=2).state_dict(), tmp_path)
    assert load_weights(foreign, path, head=False).missing == ("classifier.1.weight", "classifier.1.bias")
    with pytest.raises(ValueError, match="no linear layer"):
        load_weights(
            nn.Sequential(nn.Conv2d(3, 3, 3)), write({"0.weight": torch.zeros(3, 3, 3, 3)}, tmp_path), head=False
        )


def test_not_strict(tmp_path: Path) -> None:
    model = create_model("resnet20")
    state = {key: value + 1 for key, value in model.state_dict().items() if key != "bn1.bias"} | {"more": torch.ones(2)}
    path = write(state, tmp_path)
    refused(model, path, r"1 missing \(bn1.bias\), 1 unexpected \(more\)")
    report = load_weights(model, path, strict=False)
    assert (report.missing, report.unexpected) == (("bn1.bias",), ("more",))
    assert report.modules[-1].name == "more"
    assert torch.equal(model.fc.bias, state["fc.bias"])
    refused(model, write({**state, "fc.bias": torch.ones(3)}, tmp_path), r"fc.bias \(3,\), here \(10,\)", strict=False)
    refused(model, write({"more": torch.ones(2)}, tmp_path), r"97 missing .*, 1 unexpected \(more\)", strict=False)
    refused(
        model, write({**state, "fc.bias": torch.ones(10, dtype=torch.int32)}, tmp_path), "torch.int32", strict=False
    )


def test_dtype_device_and_old_counters(tmp_path: Path) -> None:
    model = create_model("resnet20")
    state = {key: w.half() if w.ndim else w for key, w in model.state_dict().items() if "num_batches" not in key}
    path = write(state, tmp_path)
    target = create_model("resnet20").double()
    assert load_weights(target, path).covered == 100
    assert torch.equal(target.conv1.weight, state["conv1.weight"].double())
    assert target.conv1.weight.requires_grad
    with torch.device("meta"):
        meta = create_model("resnet20")
    with pytest.raises(ValueError, match="on the meta device, which has no memory"):
        load_weights(meta, path)


def test_options_about_weights_without_any() -> None:
    for options in ({"missing": "gates"}, {"head": False}):
        with pytest.raises(ValueError, match="(missing|head|entry)= requires weights="):
            create_model("se_resnet20", **options)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"module.{key}": w for key, w in state.items()}, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {}, "state_dict_ema": state},
        lambda state: {"model": {"conv1.weight": torch.zeros(1)}, "model_ema": state},
        lambda state: {"state_dict": {f"model.{key}": w for key, w in state.items()}, "pytorch-lightning_version": "2"},
        lambda state: {"state_dict": {f"net._orig_mod.{key}": w for key, w in state.items()}},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{key}": w for key, w in state.items()}},
        lambda state: {f"module.{key}".replace("fc.", "linear."): w for key, w in state.items()},
    ],
    ids=["DataParallel", "model", "state_dict_ema", "model_ema", "Lightning", "compiled", "AveragedModel", "linear"],
)
def test_wrappings(wrap: Callable[[dict[str, Tensor]], object], tmp_path: Path) -> None:
    model = randomise(create_model("resnet20")).eval()
    path = write(wrap(dict(model.state_dict())), tmp_path)  # type: ignore[arg-type]
    loaded = create_model("resnet20", weights=path).eval()
    x = torch.randn(X)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_shortcuts_are_the_weights_own(shortcut: str, tmp_path: Path) -> None:
    model = randomise(create_model("resnet20", shortcut=shortcut)).eval()
    state = {f"module.{key}".replace("downsample", "shortcut"): w for key, w in model.state_dict().items()}
    path = write({key.replace("fc.", "linear."): w for key, w in state.items()}, tmp_path)
    loaded = create_model("resnet20", weights=path).eval()
    assert loaded.spec.shortcut == shortcut
    x = torch.randn(X)
    assert torch.equal(loaded(x), model(x))
    other = "pad" if shortcut == "projection" else "projection"
    with pytest.raises(ModelFileError, match=f"shortcut='{shortcut}', not shortcut='{other}'; leave"):
        create_model("resnet20", weights=path, shortcut=other)


def test_incomplete_weights_are_no_padding(tmp_path: Path) -> None:
    large = {key: w for key, w in create_model("resnet18").state_dict().items() if "downsample" not in key}
    with pytest.raises(ModelFileError, match=r"missing \(layer2.0.downsample.0.weight"):
        create_model("resnet18", pool="pad", weights=write(large, tmp_path))


@pytest.mark.parametrize("name", ["bn_inception", "se_mobilenet", "se_shufflenet"])
def test_other_families(name: str, tmp_path: Path) -> None:
    """Their names are their own."""
    model = create_model(name, num_classes=2)
    path = write(model.state_dict(), tmp_path)
    loaded = create_model(name, weights=path)
    assert loaded.num_classes == 2
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())


def test_fit_counts_and_names() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    weights = {key: value for key, value in model.state_dict().items() if key != "2.num_batches_tracked"}
    check_fit(weights, model.state_dict(), "it")
    del weights["1.weight"], weights["1.bias"]
    weights["0.weight"] = torch.zeros(5, 3)
    weights["head.weight"] = torch.zeros(1)
    with pytest.raises(ModelFileError) as caught:
        check_fit(weights, model.state_dict(), "it")
    assert str(caught.value) == (
        "it does not fit the network: 2 missing (1.weight; 1.bias), 1 unexpected (head.weight), "
        "1 of another shape (0.weight (5, 3), here (2, 3))"
    )


def test_se_where_no_placement_has_it(tmp_path: Path) -> None:
    model = senet.insert(create_model("resnet20"), at="relu", example=torch.zeros(X), init="paper")
    path = write(model.state_dict(), tmp_path)
    with pytest.raises(
        ModelFileError, match=r"has SE at 1 places that no placement of this network includes, such as .*relu"
    ):
        create_model("se_resnet20", weights=path)
    again = senet.insert(create_model("resnet20"), at="relu", example=torch.zeros(X), init="paper")
    assert load_weights(again, path).covered == 100


def test_se_of_another_network(tmp_path: Path) -> None:
    path = write(create_model("se_resnet56").state_dict(), tmp_path)
    with pytest.raises(
        ModelFileError,
        match=r"has SE at 18 places .* such as layer1.3.bn2; check that these weights are",
    ):
        create_model("se_resnet20", weights=path)


@pytest.mark.parametrize("strict", [True, False])
def test_gates_without_a_gain_are_not_doubled(strict: bool, tmp_path: Path) -> None:
    """All tensors of such a file fit, and the network would compute something else."""
    torch.save(create_model("se_resnet20").state_dict(), path := tmp_path / "gates.pth")
    model = create_model("se_resnet20", init="identity")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelFileError, match=r"has no layer1\.0\.bn2\.se\.gain.*init='paper'"):
        load_weights(model, path, strict=strict)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_no_source_of_weights(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got a dict; load a state dict with the network's load_state_dict"):
        create_model("resnet20", weights={"fc.bias": torch.zeros(10)})
    with pytest.raises(ModelFileError, match="is a folder"):
        create_model("resnet20", weights=tmp_path)
    with pytest.raises(ModelFileError, match="invalid repository hf-hub:x: expected OWNER/NAME"):
        create_model("resnet20", weights="hf-hub:x")
    with pytest.raises(ModelFileError, match="got ''"):
        create_model("resnet20", weights="")


def test_frozen_batch_norms_have_no_counter(tmp_path: Path) -> None:
    there = torchvision.models.resnet18(num_classes=2)
    here = torchvision.models.resnet18(num_classes=2, norm_layer=torchvision.ops.FrozenBatchNorm2d)
    assert load_weights(here, write(there.state_dict(), tmp_path)).covered == 100
    with pytest.raises(ModelFileError, match="unexpected"):
        check_fit({"0.num_batches_tracked": torch.zeros(1)}, {}, "it")
