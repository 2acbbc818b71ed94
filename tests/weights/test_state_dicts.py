"""Where in a file the state dict is, and which of several is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import senet
from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint

State = dict[str, Tensor]


def network(value: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.constant_(model[0].weight, value)
    return model


def loaded(content: object, tmp_path: Path, **options: Any) -> tuple[float, senet.WeightsReport]:
    """The weight that was taken, and the report."""
    torch.save(content, tmp_path / "model.pth")
    model = network()
    report = load_weights(model, tmp_path / "model.pth", **options)
    return float(model[0].weight.detach().mean()), report


KEYS = [
    *("model_state_dict", "model_state", "ema", "weights", "params", "params_ema", "network", "module"),
    *("state_dict", "model", "net", "state_dict_ema", "model_ema", "ema_state_dict", "net_state_dict", "my_own_key"),
]


@pytest.mark.parametrize("key", KEYS)
def test_any_key(key: str, tmp_path: Path) -> None:
    state = network(2).state_dict()
    value, report = loaded({"epoch": 3, key: state, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}, tmp_path)
    assert value == 2
    assert (report.entry, report.others) == (key, ())
    assert loaded({"checkpoint": {key: state}}, tmp_path)[0] == 2
    assert loaded({key: {"state_dict": {f"module.{name}": w for name, w in state.items()}}}, tmp_path)[0] == 2


@pytest.mark.parametrize(
    "averaged", ["ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ema_model"]
)
@pytest.mark.parametrize("plain", ["model", "state_dict", "params", "model_state_dict"])
def test_averaged_weights_are_reported_and_a_choice(averaged: str, plain: str, tmp_path: Path) -> None:
    content = {plain: network(1).state_dict(), averaged: network(2).state_dict(), "epoch": 3}
    value, report = loaded(content, tmp_path)
    assert value == 2
    assert (report.entry, report.others) == (averaged, (plain,))
    said = f"the file has several state dicts: {averaged!r} was loaded; entry={plain!r} (--weights-entry {plain})"
    assert said in str(report)
    value, report = loaded(content, tmp_path, entry=plain)
    assert value == 1
    assert (report.entry, report.others) == (plain, (averaged,))


def test_entries_in_entries(tmp_path: Path) -> None:
    content = {"model": network(1).state_dict(), "ema": {"module": network(2).state_dict(), "updates": 7}}
    assert loaded(content, tmp_path)[1].entry == "ema.module"
    assert loaded(content, tmp_path, entry="ema")[0] == 2
    assert loaded(content, tmp_path, entry="ema.module")[0] == 2
    assert loaded({**content, "ema": None}, tmp_path)[0] == 1
    assert loaded({**content, "ema": {"decay": 0.99, "shadow_params": [torch.ones(2)]}}, tmp_path)[0] == 1


def test_several_of_which_none_is_usual(tmp_path: Path) -> None:
    content = {"student": network(1).state_dict(), "teacher": network(2).state_dict()}
    with pytest.raises(ModelFileError, match="several state dicts: student, teacher; choose one, as in entry=.student"):
        loaded(content, tmp_path)
    assert loaded(content, tmp_path, entry="teacher")[0] == 2
    with pytest.raises(ModelFileError, match="has no entry 'teachers'; its state dicts are student, teacher, and"):
        loaded(content, tmp_path, entry="teachers")


def test_an_entry_may_be_a_part_of_the_names(tmp_path: Path) -> None:
    """As where a projection or an average is in the same state dict."""
    state = {f"encoder.{name}": w for name, w in network(2).state_dict().items()} | {
        "projector.0.weight": torch.ones(2)
    }
    with pytest.raises(ModelFileError, match="7 of its 8 names begin with 'encoder.': entry=.encoder. selects only"):
        loaded({"state_dict": state}, tmp_path)
    for entry in ("encoder", "state_dict.encoder"):
        value, report = loaded({"state_dict": state}, tmp_path, entry=entry)
        assert value == 2
        assert report.entry == "state_dict.encoder"


def test_a_loss_in_lightnings_state_dict(tmp_path: Path) -> None:
    state = {f"model.{name}": w for name, w in network(2).state_dict().items()} | {"criterion.weight": torch.ones(2)}
    message = (
        r"1 unexpected \(criterion.weight\).*the prefix 'model.' of some names was removed: "
        r"entry=.model. selects only those"
    )
    with pytest.raises(ModelFileError, match=message):
        loaded({"state_dict": state}, tmp_path)
    assert loaded({"state_dict": state}, tmp_path, entry="model")[0] == 2


def test_numbers_among_the_tensors(tmp_path: Path) -> None:
    assert loaded({**network(2).state_dict(), "epoch": 3, "lr": 0.1}, tmp_path)[0] == 2


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["state_dict"] = content
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="holds no state dict"):
        open_checkpoint(tmp_path / "model.pth")
    content["model"] = network(2).state_dict()
    assert loaded(content, tmp_path)[0] == 2


@pytest.mark.parametrize("how", ["create_model", "set", "option", "insert"])
def test_every_path_offers_the_choice(
    how: str, tmp_path: Path, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    plain, averaged = create_model("resnet20"), create_model("resnet20")
    torch.save({"model": plain.state_dict(), "ema": averaged.state_dict()}, path)
    if how == "create_model":
        model = create_model("resnet20", weights=path, entry="model")
        assert "entry='ema'" in str(model.weights_report)
    elif how == "insert":
        run("insert", "resnet20", "--weights", path, "--weights-entry", "model", "-o", out)
        model = senet.load(out)
    else:
        chosen = ("--set", "network.entry=model") if how == "set" else ("--weights-entry", "model")
        run("insert", path, "--network", "resnet20", *chosen, "-o", out)
        model = senet.load(out)
    assert torch.equal(model.conv1.weight, plain.conv1.weight)


@pytest.fixture
def run() -> Callable[..., Any]:
    from senet.cli import app

    def invoke(*words: object) -> Any:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return invoke


def test_the_command_line_says_which_was_taken(tmp_path: Path, run: Callable[..., Any]) -> None:
    path, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    state = create_model("resnet20").state_dict()
    torch.save({"model": state, "ema": create_model("resnet20").state_dict()}, path)
    result = run("insert", "resnet20", "--weights", path, "-o", out)
    said = " ".join(result.stderr.split())
    assert "'ema' was loaded; entry='model' (--weights-entry model) loads model" in said


def test_an_entry_without_a_file() -> None:
    with pytest.raises(ValueError, match="entry= requires weights="):
        create_model("resnet20", entry="ema")
    with pytest.raises(ValueError, match="entry=.ema.: it selects a state dict in a file"):
        load_weights(network(), network(), entry="ema")
