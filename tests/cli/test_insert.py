import json
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.nn.inserted_se import find_inserted_se
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import randomise


@pytest.fixture
def plain(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """A plain network with weights that matter, and its file."""
    model = randomise(senet.create_model("resnet20")).eval()
    senet.save(model, tmp_path / "plain.safetensors")
    return model, tmp_path / "plain.safetensors"


def test_by_name(tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    result = invoke("insert", "resnet20", "-o", output)
    assert result.exit_code == 0
    assert result.stderr == f"wrote {output}\n"
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "standard: 9 sites"
    assert lines[2].split() == ["layer1.0.bn2", "table", "batch_norm", "2", "16", "32x32", "49", "32"]
    assert len(find_inserted_se(senet.load(output))) == 9


def test_the_function_stays(tmp_path: Path, plain: tuple[torch.nn.Module, Path]) -> None:
    model, file = plain
    sites = answer("insert", file, "--placement", "post", "-o", tmp_path / "out.safetensors")
    assert sites["output"] == str(tmp_path / "out.safetensors")
    first = {"name": "layer1.0", "channels": 16, "stage": 2, "how": "output", "placement": "post", "unit": "layer1.0"}
    assert first.items() <= sites["sites"][0].items()
    loaded = senet.load(tmp_path / "out.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("--reduction", ["4"], {"hidden_channels": 4}),
        ("--squeeze", ["max"], {"squeeze": "max"}),
        ("--attention", ["eca"], {"attention": "eca", "gate": "sigmoid", "bias": False}),
        ("--attention", ["ese"], {"attention": "ese", "gate": "hard_sigmoid", "bias": True}),
        ("--gate", ["relu"], {"gate": "relu"}),
        ("--no-bias", [], {"bias": False}),
        ("--window", ["16x24"], {"window": (16, 24)}),
        ("--init", ["paper"], {"gain": 1.0}),
        ("--bias", [], {"gain": 2.0, "squeeze": "avg", "gate": "sigmoid", "bias": True, "hidden_channels": 1}),
    ],
)
def test_options_of_the_block(tmp_path: Path, option: str, values: list[str], expected: dict[str, Any]) -> None:
    assert invoke("insert", "resnet20", option, *values, "-o", tmp_path / "out").exit_code == 0
    options = find_inserted_se(senet.load(tmp_path / "out"))[0].se.options
    assert {key: options[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--stages", "2,4"], [f"layer{stage}.{unit}.bn2" for stage in (1, 3) for unit in range(3)]),
        (["--at", "layer1.0", "--at", "layer3.*.bn2"], ["layer1.0.bn2", *(f"layer3.{n}.bn2" for n in range(3))]),
        (["--placement", "conv3x3", "--stages", "3"], [f"layer2.{unit}.bn1" for unit in range(3)]),
    ],
)
def test_where(tmp_path: Path, options: list[str], names: list[str]) -> None:
    dry = answer("insert", "resnet20", *options, "--dry-run", "-o", tmp_path / "out")
    assert dry["output"] is None
    assert not (tmp_path / "out").exists()
    wet = answer("insert", "resnet20", *options, "-o", tmp_path / "out")
    assert wet["sites"] == dry["sites"]
    assert [site["name"] for site in wet["sites"]] == names
    assert [one.name for one in find_inserted_se(senet.load(tmp_path / "out"))] == names


def test_dry_run_changes_nothing(plain: tuple[torch.nn.Module, Path]) -> None:
    before = plain[1].read_bytes()
    result = invoke("insert", plain[1], "--dry-run", "-o", plain[1])
    assert result.exit_code == 0
    assert result.stderr == "nothing was written\n"
    assert plain[1].read_bytes() == before


def test_bare_weights(tmp_path: Path) -> None:
    model = randomise(senet.create_model("resnet20", num_classes=7))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    arguments = ["insert", tmp_path / "bare.pth", "--network", "resnet20", "-o", tmp_path / "out"]
    assert invoke(*arguments).exit_code == 0
    state = senet.load(tmp_path / "out").state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_options_of_the_network(tmp_path: Path) -> None:
    arguments = ["--set", "network.num_classes=4", "--set", "network.shortcut=projection", "-o", tmp_path / "out"]
    assert invoke("insert", "resnet20", *arguments).exit_code == 0
    model = senet.load(tmp_path / "out")
    assert model.num_classes == 4
    assert "layer2.0.downsample.0.weight" in model.state_dict()


def test_a_folder_that_is_called_like_a_network_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").mkdir()
    assert len(answer("insert", "resnet20", "--dry-run")["sites"]) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20"], "missing -o OUT, the model file to write; use --dry-run"),
        (["resnet21", "--dry-run"], "unknown network 'resnet21'; did you mean"),
        (["se_resnet20", "--dry-run"], "layer1.0.bn2.*already"),
        (["nowhere.pth", "--dry-run"], "no file at nowhere.pth"),
        (
            ["resnet20", "--network", "resnet20", "--dry-run"],
            "--network requires a file of bare weights, and 'resnet20'",
        ),
        (["resnet20", "--placement", "pst", "--dry-run"], "unknown --placement 'pst'; did you mean 'post'"),
        (["resnet20", "--gate", "sigmod", "--dry-run"], "unknown --gate 'sigmod'; did you mean 'sigmoid'"),
        (["resnet20", "--gate", "tanh", "--dry-run"], "gate 'tanh' has no identity initialization; use --init paper"),
        (["resnet20", "--squeeze", "avrg", "--dry-run"], "unknown --squeeze 'avrg'; did you mean 'avg'"),
        (["resnet20", "--reduction", "0", "--dry-run"], "--reduction must be .*, got 0"),
        (
            ["resnet20", "--attention", "eca", "--reduction", "8", "--dry-run"],
            "--attention eca has no hidden layer, and --reduction 8 has no effect.*, or use --attention se$",
        ),
        (["se_resnet20", "--set", "network.reduction=0", "--dry-run"], r"error: network.reduction must be .*, got 0"),
        (["se_resnet20", "--dry-run"], "'layer1.0.bn2' already has SE; give the plain network$"),
        (["resnet20", "--weights-entry", "ema", "--dry-run"], "error: --weights-entry requires --weights$"),
        (["resnet20", "--init", "zero", "--dry-run"], "unknown --init 'zero'"),
        (["resnet20", "--stages", "7", "--dry-run"], r"invalid --stages 7.*\[2, 3, 4\]"),
        (["resnet20", "--stages", "2;3", "--dry-run"], "invalid --stages '2;3': expected integers separated by commas"),
        (["resnet20", "--window", "16y24", "--dry-run"], "invalid --window '16y24': expected the size"),
        (["resnet20", "--window", "4x16x16", "--dry-run"], r"the window's size must be 2 lengths.*got \(4, 16, 16\)"),
        (["resnet20", "--window", "0", "--dry-run"], "the window's size must be 2 lengths of 1 or more.*got 0"),
        (["resnet20", "--at", "layer9", "--dry-run"], "layer9"),
        (
            ["resnet20", "--set", "network.stages=[2]", "--dry-run"],
            "stages= is an option of SE, but 'resnet20' is plain",
        ),
        (["resnet20", "-o", "no/such/out"], "there is no folder no/such to write out to; make it first"),
    ],
)
def test_refuses(arguments: list[str], message: str) -> None:
    refuses(message, "insert", *arguments)


def test_refuses_files(tmp_path: Path, plain: tuple[torch.nn.Module, Path]) -> None:
    torch.save(plain[0].state_dict(), tmp_path / "bare.pth")
    refuses(
        "plain.safetensors is a model file.*leave out --network, --set",
        *("insert", plain[1], "--network", "resnet20", "--dry-run"),
    )
    refuses(
        "bare.pth holds weights only; name their network with --network NAME",
        "insert",
        tmp_path / "bare.pth",
        "--dry-run",
    )
    refuses(
        r"bare.pth does not fit the network: .*missing",
        *("insert", tmp_path / "bare.pth", "--network", "resnet32", "--dry-run"),
    )


def test_a_network_of_another_library(tmp_path: Path) -> None:
    result = invoke("insert", "timm/resnet10t", "--set", "network.num_classes=3", "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 0
    model = senet.load(tmp_path / "out.safetensors")
    assert model.architecture["name"] == "timm/resnet10t"
    assert [one.name for one in find_inserted_se(model)] == [f"layer{stage}.0.bn2" for stage in (1, 2, 3, 4)]
    refuses("unknown network 'timm/resnet10'; did you mean 'timm/resnet1", "insert", "timm/resnet10", "--dry-run")


def test_sites_of_another_family() -> None:
    sites = answer("insert", "mobilenet", "--dry-run", "--stages", "5")["sites"]
    assert [(s["name"], s["channels"], s["stage"]) for s in sites] == [
        ("blocks.4.0.bn2", 1024, 5),
        ("blocks.4.1.bn2", 1024, 5),
    ]


def test_se_alone_is_written_and_inserted_into_another_network(tmp_path: Path) -> None:
    trained = randomise(senet.create_model("se_resnet20", num_classes=3)).eval()
    senet.save(trained, tmp_path / "trained.safetensors")
    senet.save(randomise(senet.create_model("resnet20", num_classes=5)), tmp_path / "plain.safetensors")
    # Of a network with SE, and with new SE.
    result = invoke(
        "insert", tmp_path / "trained.safetensors", "--se-only", "-o", tmp_path / "se.safetensors", "--json"
    )
    assert [site["name"] for site in json.loads(result.stdout)["sites"]] == [s.name for s in find_inserted_se(trained)]
    assert invoke("insert", "resnet20", "--se-only", "-o", tmp_path / "new.safetensors").exit_code == 0
    for name in ("se", "new"):
        assert (tmp_path / f"{name}.safetensors").stat().st_size < (tmp_path / "trained.safetensors").stat().st_size / 8
    into = ("insert", tmp_path / "plain.safetensors", "--se", tmp_path / "se.safetensors")
    result = invoke(*into, "-o", tmp_path / "both.safetensors")
    assert result.exit_code == 0, result.stderr
    assert "9 sites" in result.stdout
    found = senet.load(tmp_path / "both.safetensors").state_dict()
    plain = senet.load(tmp_path / "plain.safetensors").state_dict()
    assert all(
        torch.equal(value, trained.state_dict()[key] if ".se." in key else plain[key]) for key, value in found.items()
    )
    refuses("--reduction has no effect with --se, whose file has the sites", *into, "--reduction", 4, "--dry-run")
    for message, arguments in (
        ("--at has no effect for a network that has SE", [tmp_path / "trained.safetensors", "--se-only", "--at", "x"]),
        ("of a whole network; write its SE with senet insert", ["resnet20", "--se", tmp_path / "trained.safetensors"]),
        ("does not fit this ResNet", ["timm/resnet10t", "--se", tmp_path / "se.safetensors"]),
    ):
        refuses(message, "insert", *arguments, "-o", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("output", ["net.py", "net.safetensors"])
def test_a_file_of_code_is_not_overwritten(tmp_path: Path, output: str) -> None:
    code = "import senet\n\n\ndef network():\n    return senet.create_model('resnet20')\n"
    (tmp_path / "net.py").write_text(code)
    (tmp_path / "net.safetensors").symlink_to("net.py")
    result = invoke("insert", f"{tmp_path}/net.py:network", "-o", f"{tmp_path}/{output}")
    assert result.exit_code == 2
    assert "model file must end in .safetensors" in result.stderr or "is also an input" in result.stderr
    assert (tmp_path / "net.py").read_text() == code
