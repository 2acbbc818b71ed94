import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import senet
from senet.cli.common.site_report import SiteReport, print_report
from senet.costs.site_costs import SiteCosts
from tests.cli.helpers import answer, invoke, refuses
from tests.cli.test_models import se_parameters


class Pair(nn.Module):
    """A network of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.other = nn.Conv2d(1, 8, 3, 2, 1)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        return torch.cat([self.stem(image), self.other(depth)], 1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a user's file of networks."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import senet, torch\nfrom tests.cli.test_sites import Pair\nfrom tests.graph.test_layers import TinyUNet\n\n"
        "def make():\n    return senet.create_model('resnet20')\n\n"
        "def deep(depth):\n    return None\n\n"
        "def number():\n    return 3\n\n"
        "def linear():\n    return torch.nn.Linear(3, 4)\n"
    )
    return tmp_path


def test_a_named_network_as_a_table() -> None:
    result = invoke("sites", "resnet20")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "standard: 9 sites"
    assert lines[2].split() == ["layer1.0.bn2", "table", "batch_norm", "2", "16", "32x32", "49", "32"]
    assert lines[-1] == (
        "SE adds 2,373 parameters (0.88 % of 269,722) and 2,016 multiply-adds (0.005 % of 40,551,040) on an input of "
        "1x3x32x32."
    )


def test_as_data() -> None:
    shown = answer("sites", "resnet20", "--placement", "post", "--stages", "3,4", "--reduction", "4")
    assert shown["placement"] == "post"
    assert shown["inputs"] == [[1, 3, 32, 32]]
    assert [site["name"] for site in shown["sites"]] == [f"layer{s}.{unit}" for s in (2, 3) for unit in range(3)]
    first = shown["sites"][0]
    assert (first["channels"], first["resolution"], first["stage"], first["how"]) == (32, [16, 16], 3, "output")
    assert (first["hidden"], first["parameters"], first["macs"]) == (8, se_parameters(32, 4), 2 * 32 * 8)
    plain = senet.cost(senet.create_model("resnet20"), (3, 32, 32))
    assert (shown["parameters"], shown["macs"]) == (plain.params, plain.macs)
    assert shown["se_parameters"] == 3 * (se_parameters(32, 4) + se_parameters(64, 4))


def test_a_function_of_the_user(here: Path) -> None:
    shown = answer("sites", "net.py:make", "--input", "2x3x64x48", "--at", "layer3.*")
    assert shown["inputs"] == [[2, 3, 64, 48]]
    assert [site["resolution"] for site in shown["sites"]] == [[16, 12]] * 3
    pair = ["net.py:Pair", "--at", "stem", "--input", "1x3x16x16", "--input", "1x1x16x16"]
    assert answer("sites", *pair)["macs"] == 36 * 8 * 64
    keywords = [*pair[:3], "--input", "depth=1x1x16x16", "--input", "image=1x3x16x16"]
    assert answer("sites", *keywords)["sites"] == answer("sites", *pair)["sites"]
    assert not [path for path in here.iterdir() if path.suffix != ".py" and path.name != "__pycache__"]


def test_excluded_modules(here: Path) -> None:
    shown = answer("sites", "net.py:TinyUNet", "--at", "deep.0")
    assert [(site["name"], site["rule"]) for site in shown["sites"]] == [("deep.0", "at")]
    classifier = {"name": "fc", "reason": "classifier: its maps have no spatial axes"}
    assert classifier in answer("sites", "net.py:TinyUNet")["excluded"]
    text = invoke("sites", "net.py:TinyUNet").stdout
    assert re.search(r"No sites in\nmodules +because\n.*fc +classifier: its maps", text, re.S)


def test_long_lists_of_excluded_modules_are_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(SiteReport("standard", SiteCosts((), (), 1, None), {f"m{n}": "why" for n in range(9)}, None, None))
    assert "m0, m1, m2, m3 and 5 more  why\n" in capsys.readouterr().out


def test_a_file(tmp_path: Path) -> None:
    senet.save(senet.create_model("resnet20"), tmp_path / "model.safetensors")
    assert answer("sites", tmp_path / "model.safetensors") == answer("sites", "resnet20")


def test_insert_shows_the_same_sites() -> None:
    options = ["resnet20", "--placement", "pre", "--reduction", "8"]
    inserted = answer("insert", *options, "--dry-run")
    assert inserted.pop("output") is None
    assert inserted == answer("sites", *options)


def test_plot(tmp_path: Path) -> None:
    path = tmp_path / "sites.png"
    result = invoke("sites", "resnet20", "--plot", path)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"drew {path}\n"
    assert result.stdout == invoke("sites", "resnet20").stdout
    with Image.open(path) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:make", "--plot", "x.jpg"], "invalid --plot 'x.jpg': the name must end in .png"),
        (["net.py:make", "--plot", "no/such/x.png"], "no folder no/such"),
        (["net.py:mak"], "unknown function of net.py 'mak'; did you mean 'make'"),
        (["net.py"], "'net.py' names no function"),
        (["none.py:make"], "no file at none.py"),
        (["net.py:deep"], r"net.py:deep needs arguments \(depth\)"),
        (["net.py:number"], "net.py:number returned 3: return the network"),
        (["net.py:make", "--network", "resnet20"], "--network requires a file of bare weights"),
        (["net.py:make", "--set", "network.num_classes=3"], "--set requires a named network"),
        (["net.py:make", "--input", "3,32,32"], r"invalid --input '3,32,32': expected \[NAME=\]SHAPE"),
        (["net.py:make", "--input", "1x4x32x32"], "ResNet does not run on example"),
        (["net.py:make", "--placement", "stndard"], "unknown --placement 'stndard'; did you mean 'standard'"),
        (["net.py:make", "--stages", "2;3"], "invalid --stages '2;3': expected integers"),
        (["net.py:make", "--stages", "7"], r"invalid --stages 7"),
        (["net.py:make", "--at", "layer9"], "layer9"),
        (["net.py:make", "--reduction", "0"], "--reduction must be .*, got 0"),
        (
            ["net.py:Pair"],
            r"Pair did not run on an image.*give --input, an input of the network$",
        ),
        (["net.py:linear"], "found no convolutional units in Linear"),
        (["net.py:Pair", "--at", "stem", "--input", "1x3x16x16"], "Pair does not run on example"),
        (["se_resnet20"], "se_resnet20 has SE at 9 sites already; give the plain network"),
        (["resnet21"], "unknown network 'resnet21'; did you mean"),
        (["nowhere.pth"], "no file at nowhere.pth"),
    ],
)
@pytest.mark.usefixtures("here")
def test_refuses(arguments: list[str], message: str) -> None:
    refuses(message, "sites", *arguments)
