import pytest

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
    assert {(row["size"], row["num_classes"]) for row in rows} == {(224, 1000), (32, 10)}


@pytest.mark.parametrize("pattern", ["se_resnet2?", "resnet2[0]", "*resnet20"])
def test_pattern_finds_plain_networks_and_those_with_se(pattern: str) -> None:
    result = invoke("models", pattern)
    assert result.exit_code == 0
    heading, row = result.stdout.strip().splitlines()
    assert heading.split()[0] == "network"
    assert row.split() == ["resnet20", "se_resnet20", "32x32", "269,722", f"{269_722 + SE_RESNET20:,}", "0.9", "%"]
    assert [r["name"] for r in answer("models", pattern)] == ["resnet20"]


def test_one_network_by_stage() -> None:
    shown = answer("models", "se_resnet20", "--set", "network.reduction=4")
    assert (shown["plain"], shown["plain_parameters"]) == ("resnet20", 269_722)
    assert shown["parameters"] == 269_722 + shown["se_parameters"]
    assert shown["sites"] == [f"layer{stage}.{unit}.bn2" for stage in (1, 2, 3) for unit in range(3)]
    expected = [
        {
            "stage": stage,
            "module": f"layer{stage - 1}",
            "units": 3,
            "channels": channels,
            "stride": stride,
            "sites": 3,
            "hidden": channels // 4,
            "se_parameters": 3 * se_parameters(channels, 4),
        }
        for stage, channels, stride in ((2, 16, 1), (3, 32, 2), (4, 64, 4))
    ]
    assert [{key: stage[key] for key in expected[0]} for stage in shown["stages"]] == expected
    # What is in no stage: the stem's convolution and BN, and the classifier.
    assert 269_722 - sum(stage["parameters"] for stage in shown["stages"]) == 27 * 16 + 32 + 650


def test_one_network_as_a_table() -> None:
    result = invoke("models", "se_resnet20")
    assert result.exit_code == 0
    assert f"of which {SE_RESNET20:,} (0.9 %) are of SE; 269,722 in resnet20" in result.stdout
    assert "SE stands at layer1.0.bn2 and 8 more." in result.stdout
    plain = invoke("models", "resnet20").stdout
    assert "of which 0 (0.0 %)" in plain
    assert "SE stands" not in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt20"], "unknown network 'resnt20'; did you mean 'resnet20'.*`senet models` lists all"),
        (["x*"], r"unknown network 'x\*'.*`senet models` lists all"),
        (
            ["se_*", "--set", "network.reduction=4"],
            r"--set goes with the name of one network, and 'se_\*' is a pattern",
        ),
        (["--set", "network.reduction=4"], r"'\*' is a pattern"),
        (["se_resnet20", "--set", "reduction=4"], "--set reduction=... is no option of the network; write network.KEY"),
        (["se_resnet20", "--set", "network.reducton=4"], "unknown option 'reducton'; did you mean 'reduction'"),
        (["resnet20", "--set", "network.reduction=4"], "'resnet20' is plain; 'se_resnet20' is the network with SE"),
        (["resnet20", "--set", "network.features_only=true"], "features_only gives a network without classes.*leave"),
        (["resnet20", "--set", "network=3"], "network must be a table, got 3"),
    ],
)
def test_refuses(arguments: list[str], message: str) -> None:
    refuses(message, "models", *arguments)
