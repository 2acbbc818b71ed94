import re
from pathlib import Path

import pytest
import timm
from PIL import Image

from senet import paper
from senet.models import CATALOGUE
from tests.cli.helpers import answer, invoke, refuses


def se_parameters(channels: int, reduction: int) -> int:
    """Two layers with biases: paper, equations 3 and 4."""
    hidden = channels // reduction
    return 2 * channels * hidden + hidden + channels


SE_RESNET20 = 3 * sum(se_parameters(channels, 16) for channels in (16, 32, 64))


def test_lists_the_catalogue() -> None:
    rows = answer("models")
    assert [row["name"] for row in rows] == list(CATALOGUE)
    counts = {row["se_name"]: (row["parameters"], row["se_parameters"]) for row in rows}
    assert counts["se_resnet50"] == (25_557_032, 28_088_024)  # torchvision's resnet50; the authors' release
    assert counts["senet154"][1] == 115_088_984
    assert counts["se_resnet20"] == (269_722, 269_722 + SE_RESNET20)
    assert {(row["size"], row["num_classes"]) for row in rows} >= {(224, 1000), (32, 10)}


@pytest.mark.parametrize("pattern", ["se_resnet2?", "resnet2[0]", "*resnet20"])
def test_pattern_finds_plain_networks_and_those_with_se(pattern: str) -> None:
    result = invoke("models", pattern)
    assert result.exit_code == 0
    heading, row = result.stdout.strip().splitlines()
    assert heading.split()[0] == "network"
    assert row.split() == ["resnet20", "se_resnet20", "32x32", "269,722", f"{269_722 + SE_RESNET20:,}", "0.9", "%"]
    assert [r["name"] for r in answer("models", pattern)] == ["resnet20"]


def test_detectors() -> None:
    rows = answer("models", "retinanet:*resnet20")
    names = ["retinanet:resnet20", "retinanet:se_resnet20"]
    assert rows == [{"name": name, "size": 800, "num_classes": 80} for name in names]
    result = invoke(
        "models", "retinanet:se_resnet20", "--set", "network.min_size=64", "--set", "network.fpn_channels=8"
    )
    assert result.exit_code == 0
    assert "the cost is that of the backbone with its feature pyramid" in result.stderr
    assert f"{SE_RESNET20:,} of them" in result.stdout
    assert "in retinanet:resnet20, its plain twin" in result.stdout
    refuses("unknown network 'retina:resnet20'; did you mean 'retinanet:resnet20'?", "models", "retina:resnet20")


def test_one_network_by_stage() -> None:
    shown = answer("models", "se_resnet20", "--set", "network.reduction=4")
    assert (shown["plain"], shown["plain_parameters"], shown["input_size"]) == ("resnet20", 269_722, [3, 32, 32])
    assert shown["parameters"] == 269_722 + shown["se_parameters"]
    assert shown["sites"] == [f"layer{stage}.{unit}.bn2" for stage in (1, 2, 3) for unit in range(3)]
    expected = [
        {
            "stage": stage,
            "module": f"layer{stage - 1}",
            "units": 3,
            "channels": channels,
            "resolution": [32 // stride] * 2,
            "stride": stride,
            "sites": 3,
            "hidden": channels // 4,
            "se_parameters": 3 * se_parameters(channels, 4),
            "se_macs": 3 * 2 * channels**2 // 4,
        }
        for stage, channels, stride in ((2, 16, 1), (3, 32, 2), (4, 64, 4))
    ]
    stem, *stages, head = shown["stages"]
    assert [{key: stage[key] for key in expected[0]} for stage in stages] == expected
    assert (stem["stage"], stem["module"], stem["parameters"], stem["macs"]) == (
        1,
        "conv1",
        27 * 16 + 32,
        27 * 16 * 1024,
    )
    assert (head["stage"], head["module"], head["parameters"], head["macs"]) == (None, "fc", 650, 640)
    for key in ("parameters", "macs", "se_parameters", "se_macs", "other", "se_other"):
        assert shown[key] == sum(stage[key] for stage in shown["stages"])
    assert shown["macs"] == shown["plain_macs"] + shown["se_macs"]
    assert 1 < shown["saved_bytes"] / shown["plain_saved_bytes"] < 1.05
    assert shown["paper"] == []


@pytest.mark.slow
def test_one_network_alongside_the_paper() -> None:
    shown = answer("models", "se_resnet50", "--set", "network.reduction=8", "--set", "network.bias=false")
    (line,) = shown["paper"]
    assert (line["table"], line["label"], line["paper_parameters"], line["paper_macs"]) == ("10", "r = 8", 30.7e6, None)
    assert line["parameters"] == shown["parameters"] == 25_557_032 + shown["se_parameters"]
    assert line["parameters_deviation"] == pytest.approx(shown["parameters"] / 30.7e6 - 1)
    assert line["parameters_mismatch"]
    text = invoke("models", "se_resnet50").stdout
    assert "Table 2, SE-ResNet-50" in text
    assert "3.87 G" in text
    assert re.search(r"release, SE-ResNet-50 .* 28,088,024 +28,088,024 +\+0\.0 %", text)


def test_one_network_as_a_table() -> None:
    result = invoke("models", "se_resnet20")
    assert result.exit_code == 0
    assert f"{SE_RESNET20:,} of them (0.9 %) in SE; 269,722 in resnet20" in result.stdout
    assert "SE at layer1.0.bn2 and 8 more sites." in result.stdout
    assert "multiply-adds for an image of 32x32, 2,016 of them (" in result.stdout
    assert "times the plain twin's" in result.stdout
    plain = invoke("models", "resnet20").stdout
    assert "269,722 parameters, none in SE." in plain
    assert "SE at" not in plain
    assert "times the plain twin's" not in plain


@pytest.fixture
def few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper has those rows only that the tests look at, and one of every other table.

    Counting all 60 networks takes seconds; tests/costs/test_tables.py does it.
    """
    wanted = {("2", "ResNet-50"), ("2", "SE-ResNet-50"), ("release", "SENet-154")}
    wanted |= {("10", f"r = {reduction}") for reduction in (2, 4, 8)}
    tables = {table for table, _ in wanted}
    for entry in paper.entries(*paper.COST_TABLES):
        if entry.table not in tables:
            tables.add(entry.table)
            wanted.add((entry.table, entry.label))
    kept = [entry for entry in paper.ENTRIES if (entry.table, entry.label) in wanted]
    monkeypatch.setattr(paper, "ENTRIES", kept)


@pytest.mark.usefixtures("few_entries")
def test_the_paper_as_data() -> None:
    lines = answer("models", "--paper")
    assert list(dict.fromkeys(line["table"] for line in lines)) == ["2", "3", "10", "13", "15", "16", "release"]
    found = {(line["table"], line["label"]): line for line in lines}
    resnet50 = found["2", "SE-ResNet-50"]
    assert (resnet50["network"], resnet50["options"], resnet50["paper_macs"]) == ("se_resnet50", {}, 3.87e9)
    assert (resnet50["top1_error"], resnet50["top5_error"]) == (23.29, 6.62)
    assert abs(resnet50["macs_deviation"]) < 0.012
    assert found["10", "r = 2"]["options"] == {"reduction": 2, "bias": False}
    assert found["release", "SENet-154"]["parameters"] == 115_088_984
    assert found["2", "ResNet-50"]["original"] == [24.7, 7.8]


@pytest.mark.usefixtures("few_entries")
def test_the_paper_as_tables() -> None:
    result = invoke("models", "--paper")
    assert result.exit_code == 0
    assert "Table 2: ImageNet" in result.stdout
    assert re.search(r"\nSE-ResNet-50 +se_resnet50 +- +23\.29/6\.62 +3\.87 G +3\.860 G +-0\.2 %", result.stdout)
    assert re.search(r"\nr = 8 +.* 30\.7 M +30\.59 M +-0\.4 % ! +\[\d\]", result.stdout)
    assert re.search(r"\n\[\d\] parameters: the layers that the paper describes have fewer", result.stdout)
    assert re.search(r"\nr = 4 +.* 35\.7 M +35\.62 M +-0\.2 % +\[\d\]", result.stdout)
    assert "parameters match when batch norm's running statistics are counted" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 160


def test_networks_of_other_libraries() -> None:
    shown = answer("models", "se_timm/resnet50")
    assert (shown["plain"], shown["plain_parameters"], len(shown["sites"])) == ("timm/resnet50", 25_557_032, 16)
    own = answer("models", "timm/seresnet50")
    assert (own["plain"], own["plain_saved_bytes"], own["sites"][0]) == (None, None, "layer1.0.se")
    assert (own["se_parameters"], own["se_macs"]) == (shown["se_parameters"], shown["se_macs"])
    assert own["saved_bytes"] > shown["saved_bytes"] > shown["plain_saved_bytes"]


def test_names_of_other_libraries() -> None:
    rows = answer("models", "timm/legacy_seresnet*")
    assert [row["name"] for row in rows] == [f"timm/{name}" for name in timm.list_models("legacy_seresnet*")]
    assert rows[0] == {"name": "timm/legacy_seresnet18", "size": 224, "num_classes": 1000}
    lines = [line.split() for line in invoke("models", "se_torchvision/vgg1[13]_bn").stdout.splitlines()]
    assert [line for line in lines if line][1:] == [[f"se_torchvision/vgg1{n}_bn", "224x224", "1,000"] for n in (1, 3)]


def test_plot(tmp_path: Path) -> None:
    path = tmp_path / "cost.png"
    result = invoke("models", "se_resnet20", "--plot", path)
    assert result.exit_code == 0
    assert result.stderr.strip() == f"drew {path}"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt20"], "unknown network 'resnt20'; did you mean 'resnet20'.*`senet models` lists all"),
        (["timm/resnet26q"], "unknown network 'timm/resnet26q'; did you mean 'timm/resnet26"),
        (["x*"], r"unknown network 'x\*'.*`senet models` lists all"),
        (["timm/resnt5*"], r"unknown network 'timm/resnt5\*'; did you mean .*`senet models 'timm/\*'` lists all"),
        (
            ["se_*", "--set", "network.reduction=4"],
            r"--set requires the name of one network, and 'se_\*' is a pattern",
        ),
        (["--set", "network.reduction=4"], r"'\*' is a pattern"),
        (["se_*", "--plot", "x.png"], r"--plot requires the name of one network, and 'se_\*' is a pattern"),
        (["se_resnet20", "--plot", "x.jpg"], "invalid --plot 'x.jpg': the name must end in .png"),
        (["se_resnet20", "--paper"], "--paper shows the paper's tables for all networks; leave out NAME"),
        (
            ["se_resnet20", "--set", "reduction=4"],
            "--set reduction=... is not an option of the network; write network.KEY",
        ),
        (["se_resnet20", "--set", "network.reducton=4"], "unknown option 'reducton'; did you mean 'reduction'"),
        (["resnet20", "--set", "network.reduction=4"], "'resnet20' is plain; 'se_resnet20' is the network with SE"),
        (["resnet20", "--set", "network.features_only=true"], "features_only builds a network without classes.*leave"),
        (
            ["resnet20", "--set", "network=3"],
            "--set network=... is not an option of the network; write network.KEY=VALUE",
        ),
    ],
)
def test_refuses(arguments: list[str], message: str) -> None:
    refuses(message, "models", *arguments)
