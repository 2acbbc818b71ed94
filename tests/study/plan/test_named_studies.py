"""The named studies: their arms, the paper's rows of these, and that a seed pairs them."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.data import ImageData
from senet.graph.se_modules import find_se
from senet.paper import entries
from senet.recipes import load_recipe
from senet.runs import Silent
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import STUDIES, duplicate_ratios, open_study
from senet.study.plan.plan import PlannedRun
from senet.study.plan.study import PLAIN
from tests.helpers import randomise
from tests.slow import fast_if
from tests.training.runs import digits

QUICK = ("workers=0", "device=cpu", "batch=8")


def arms_of(name: str, network: str = "resnet20") -> dict[str, tuple[str, tuple[str, ...]]]:
    return {arm.name: (arm.network, arm.settings) for arm in open_study(name, network).arms}


def build(network: str, settings: tuple[str, ...]) -> torch.nn.Module:
    return senet.create_model(network, **load_recipe("digits", settings).network)


def test_the_studies_that_there_are() -> None:
    names = {
        "reduction",
        "attention",
        "squeeze",
        "gate",
        "stages",
        "placement",
        "conv3x3",
        "nosqueeze",
        "init",
        "networks",
    }
    assert {*STUDIES, "networks"} == names


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_network_with_se_and_without_mean_the_same(name: str) -> None:
    assert open_study(name, "se_resnet20") == open_study(name, "resnet20")
    assert arms_of(name)[PLAIN] == ("resnet20", ())
    assert open_study(name, "resnet20").baseline == PLAIN


def test_a_default_has_no_setting() -> None:
    standard = ("se_resnet20", ())
    for study, arm in [("reduction", "reduction-16"), ("placement", "standard"), ("stages", "all-stages")]:
        assert arms_of(study)[arm] == standard
    for study, arm in [
        ("attention", "attention-se"),
        ("gate", "gate-sigmoid"),
        ("squeeze", "squeeze-avg"),
        ("conv3x3", "standard"),
    ]:
        assert arms_of(study)[arm] == standard


def test_what_the_arms_are() -> None:
    assert arms_of("reduction")["reduction-2"] == ("se_resnet20", ("network.reduction=2",))
    assert arms_of("attention")["attention-eca"] == ("se_resnet20", ("network.attention=eca",))
    assert list(arms_of("placement")) == [PLAIN, "standard", "pre", "post", "identity"]
    assert list(arms_of("init")) == [PLAIN, "init-identity", "init-paper"]
    assert not any(arm.entry for arm in open_study("init", "resnet20").arms)  # the paper fine-tunes nothing
    assert arms_of("init")["init-paper"][1] == ("network.missing=gates", "network.init=paper")
    se = {arm.name: find_se(build(arm.network, arm.settings)) for arm in open_study("gate", "resnet20").arms}
    assert {name: {type(unit.module.gate).__name__ for unit in units} for name, units in se.items()} == {
        PLAIN: set(),
        "gate-relu": {"ReLU"},
        "gate-tanh": {"Tanh"},
        "gate-sigmoid": {"Sigmoid"},
    }


def test_a_study_of_version_0_1_has_its_old_name() -> None:
    assert open_study("start", "resnet20") == open_study("init", "resnet20")


@pytest.mark.parametrize(("network", "stages"), [("resnet20", [2, 3, 4]), ("resnet50", [2, 3, 4, 5])])
def test_stages_are_those_of_the_network(network: str, stages: list[int]) -> None:
    study = open_study("stages", network)
    assert [arm.name for arm in study.arms] == [PLAIN, *(f"stage-{n}" for n in stages), "all-stages"]
    assert {arm.name: arm.entry.top1 for arm in study.arms if arm.entry} == {
        PLAIN: 23.30,
        "stage-2": 23.03,
        "stage-3": 23.04,
        "stage-4": 22.68,
        "all-stages": 22.28,
    }


@pytest.mark.parametrize("table", ["10", "11", "12", "13", "14", "15", "16"])
def test_each_row_of_an_ablation_has_an_arm(table: str) -> None:
    """With the options of the row, but for the bias, which the release has and the ablations have not."""
    (name,) = (name for name, found in STUDIES.items() if found.table == table)
    arms = {arm.entry.label: arm for arm in open_study(name, "resnet50").arms if arm.entry and arm.entry.table == table}
    assert set(arms) == {entry.label for entry in entries(table)}
    for entry in entries(table):
        options = load_recipe("digits", arms[entry.label].settings).network
        assert {"bias": False, **options} == {"bias": False, **entry.options}
        assert arms[entry.label].network == entry.network


@pytest.mark.parametrize(("data", "table"), [("torchvision:CIFAR10?root=x", "4"), ("torchvision:CIFAR100?root=x", "5")])
def test_networks_are_compared_with_the_table_of_their_data(data: str, table: str) -> None:
    study = open_study("networks", data=data)
    assert study.table == table
    found = {arm.network: arm.entry for arm in study.arms if arm.entry is not None}
    assert found == {entry.network: entry for entry in entries(table)}
    assert len(study.arms) == 10
    for arm in study.arms:
        assert arm.against == (arm.name.removeprefix("se_") if arm.name.startswith("se_") else "")


def test_a_ratio_that_makes_the_same_network_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from senet.study.plan import named_studies

    sites = [dataclasses.make_dataclass("Site", ["channels"])(count) for count in (8, 16)]
    monkeypatch.setattr(named_studies, "_sites", lambda plain: sites)
    assert duplicate_ratios("any", [16, 2, 4, 8, 32]) == {
        32: 16
    }  # hidden units 1 and 1; 4 and 8, 2 and 4, 1 and 2 are others
    study = open_study("reduction", "resnet20")
    assert [arm.name for arm in study.arms] == [PLAIN, *(f"reduction-{r}" for r in (2, 4, 8, 16))]
    assert re.search("dropped r = 32: .* as many units as with r = 16", study.notes[0])


def test_ratios_of_a_real_network_differ() -> None:
    for network in ("resnet20", "resnet50"):
        assert not open_study("reduction", network).notes
        built = [build(arm.network, arm.settings) for arm in open_study("reduction", "resnet20").arms]
        counts = [sum(p.numel() for p in model.parameters()) for model in built]
        assert len(set(counts)) == 6


class Begun(BaseException):
    """A run is at its first step, which is all that the test needs."""


class Peek(Silent):
    """Keeps what a run starts from: its network's tensors, and the batches of its first two epochs."""

    def start(self, model: Any, recipe: Any, training: Any, validation: Any, epochs: list[Any]) -> None:
        self.weights = {key: value.clone() for key, value in model.state_dict().items()}
        self.batches = [batch for epoch in range(2) for batch in training.epoch(epoch, 0)]
        raise Begun


@pytest.fixture(scope="module")
def few() -> tuple[ImageData, ImageData]:
    return digits(images=3)


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        *((name, None) for name in STUDIES),
        ("networks", ("preresnet110", "se_preresnet110")),
        pytest.param("networks", None, marks=pytest.mark.slow),
    ],
)
@fast_if(lambda name, arms: arms is None and name in ("init", "placement"))
def test_a_seed_pairs_the_arms(
    tmp_path: Path, few: tuple[ImageData, ImageData], name: str, arms: tuple[str, ...] | None
) -> None:
    """It gives every arm the same plain weights and the same images in the same order; another seed gives others.

    SE draws its weights after the plain network has drawn its own, and nothing of an order or a step is drawn by the
    generator that they are drawn by.
    """
    weights = tmp_path / "plain.safetensors"
    senet.save(randomise(senet.create_model("resnet20", num_classes=3)), weights)
    settings = [*QUICK, *([f"network.weights={weights}"] if name == "init" else [])]
    study = open_study(name, None if name == "networks" else "resnet20")
    study = study if arms is None else study.only(arms)
    plan = make_plan(study, data="digits", recipe="digits", seeds=2, folder=tmp_path, settings=tuple(settings))

    def start_of(run: PlannedRun) -> Peek:
        """The very start of a run, by `senet.train`."""
        peek = Peek()
        with pytest.raises(Begun):
            senet.train(run.arm.network, few, plan.recipe_of(run), run.folder, reporter=peek)
        return peek

    begun = {run.arm.name: start_of(run) for run in plan.runs if run.seed == 0}
    for arm in study.arms:
        one, plain = begun[arm.name], begun[arm.against or study.baseline or study.arms[0].name]
        if name != "networks" or arm.against:
            differing = [key for key, value in plain.weights.items() if not torch.equal(one.weights[key], value)]
            assert not differing, arm.name
        for (pixels, labels), (first, first_labels) in zip(one.batches, plain.batches, strict=True):
            assert torch.equal(pixels, first)
            assert torch.equal(labels, first_labels)
    first, other = begun[study.arms[0].name], start_of(plan.runs[len(study.arms)])
    assert not torch.equal(first.batches[0][0], other.batches[0][0])
    # In the study "init" all seeds have the weights of the file.
    assert torch.equal(first.weights["conv1.weight"], other.weights["conv1.weight"]) == (name == "init")


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("stage", "resnet20", "unknown study 'stage'; did you mean 'stages'\\?.*a path that ends in .toml"),
        ("gate", None, "give --network NAME"),
        ("gate", "resnet21", "unknown network 'resnet21'; did you mean"),
        ("networks", "resnet20", "names its own networks; leave out --network resnet20"),
        ("nowhere.toml", None, "no study file at nowhere.toml"),
    ],
)
def test_refuses(name: str, network: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_study(name, network)


def test_some_of_the_arms() -> None:
    study = open_study("placement", "resnet20")
    assert [arm.name for arm in study.only(["post", "plain"]).arms] == [PLAIN, "post"]
    assert study.only(["post", "pre"]).baseline == PLAIN  # which may be run later
    with pytest.raises(ValueError, match="unknown arm 'prae'; did you mean 'pre'"):
        study.only(["prae"])
    with pytest.raises(ValueError, match="no arm is left; choose from plain, standard"):
        study.only([])


def test_a_detector_is_fine_tuned_from_weights_of_its_backbone() -> None:
    assert open_study("init", "resnet20").needs == ("network.weights",)
    assert open_study("init", "faster_rcnn:resnet20").needs == ("network.backbone_weights",)
