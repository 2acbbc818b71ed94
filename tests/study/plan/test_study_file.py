"""Studies of one's own: a grid becomes arms, and what is wrong with one is said."""

from pathlib import Path

import pytest

from senet.recipes import load_recipe
from senet.study.plan.named_studies import open_study
from senet.study.plan.study import Study


def study(folder: Path, text: str, network: str | None = None) -> Study:
    (folder / "mine.toml").write_text(text)
    return open_study(folder / "mine.toml", network)


def test_every_value_meets_every_other_one(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        """
        title = "reduction and learning rate"
        baseline = "se_resnet20-reduction-16-lr-0.1"
        [grid]
        network = ["resnet20", "se_resnet20"]
        reduction = [4, 16]
        lr = [0.1, 0.05]
        placement = "pre"
        "network.drop_path_rate" = 0.1
        """,
    )
    assert (found.name, found.title, found.table) == ("mine", "reduction and learning rate", "")
    assert found.baseline == "se_resnet20-reduction-16-lr-0.1"
    assert [arm.name for arm in found.arms] == [
        "resnet20-lr-0.1",  # once, whatever the reduction
        "resnet20-lr-0.05",
        "se_resnet20-reduction-4-lr-0.1",
        "se_resnet20-reduction-4-lr-0.05",
        "se_resnet20-reduction-16-lr-0.1",
        "se_resnet20-reduction-16-lr-0.05",
    ]
    assert [arm.against for arm in found.arms] == ["", "", *(["resnet20-lr-0.1", "resnet20-lr-0.05"] * 2)]
    plain, last = (load_recipe("digits", found.arms[n].settings) for n in (0, -1))
    assert (plain.lr, plain.network) == (0.1, {"drop_path_rate": 0.1})
    assert (last.lr, last.network) == (0.05, {"reduction": 16, "placement": "pre", "drop_path_rate": 0.1})
    assert found.arms[-1].label == "se_resnet20 reduction=16 lr=0.05"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("se_lr_factor", "[1.0, 10.0]"),
        ("train_only", '["all", "se"]'),
        ("reduction", "[4, 16]"),
        ("placement", '["standard", "pre"]'),
        ("squeeze", '["avg", "max"]'),
        ("gate", '["sigmoid", "tanh"]'),
        ("bias", "[true, false]"),
        ("stages", "[2, 3]"),
        ("at", '["*.bn2", "*.bn1"]'),
        ("init", '["paper", "identity"]'),
        ("missing", '["gates", "none"]'),
    ],
)
def test_what_is_about_se_alone_does_not_multiply_plain_networks(tmp_path: Path, key: str, values: str) -> None:
    text = f"[grid]\nnetwork = ['resnet20', 'se_resnet20']\n{key} = {values}\nlr = [0.1, 0.05]\n"
    found = study(tmp_path, text)
    plain, with_se = ([arm for arm in found.arms if (arm.network == "resnet20") == is_plain] for is_plain in (1, 0))
    assert [arm.name for arm in plain] == ["resnet20-lr-0.1", "resnet20-lr-0.05"]
    assert [arm.settings for arm in plain] == [("lr=0.1",), ("lr=0.05",)]
    assert len(with_se) == 4
    assert [arm.against for arm in with_se] == ["resnet20-lr-0.1", "resnet20-lr-0.05"] * 2
    assert not found.notes


def test_no_key_of_se_is_forgotten() -> None:
    """Every option of `insert`, but the example that is no value; and every key of a recipe that says it is SE's."""
    from inspect import signature

    from senet import insert
    from senet.study.plan.se_keys import SE_KEYS, SE_OPTIONS

    options = set(signature(insert).parameters) - {"model", "example", "optimizer"}
    assert options <= set(SE_OPTIONS)
    assert {"se_lr_factor", "train_only"} == set(SE_KEYS)


def test_a_grid_of_plain_networks_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = study(tmp_path, "[grid]\nnetwork = 'resnet20'\nse_lr_factor = [1.0, 10.0]\nreduction = 4\n")
    assert [(arm.name, arm.settings) for arm in found.arms] == [("resnet20", ())]
    assert found.notes == (
        "se_lr_factor is ignored: it is about SE, and no network of the grid has SE",
        "network.reduction is ignored: it is about SE, and no network of the grid has SE",
    )


def test_a_network_of_the_command_line(tmp_path: Path) -> None:
    found = study(tmp_path, "[grid]\nlabel_smoothing = [0.0, 0.1]\n", "se_resnet20")
    assert [(arm.name, arm.network) for arm in found.arms] == [
        ("se_resnet20-label_smoothing-0.0", "se_resnet20"),
        ("se_resnet20-label_smoothing-0.1", "se_resnet20"),
    ]
    assert (found.title, found.baseline) == ("mine", "")


def test_values_of_every_kind(tmp_path: Path) -> None:
    text = '[grid]\nnetwork = "se_resnet20"\nstages = [[2, 3], 4]\nbias = [true, false]\nmilestones = [[2], [3, 4]]\n'
    found = study(tmp_path, text)
    recipes = [load_recipe("digits", arm.settings) for arm in found.arms]
    assert [recipe.network for recipe in recipes][::2] == [
        *({"stages": [2, 3], "bias": bias} for bias in (True, False)),
        *({"stages": 4, "bias": bias} for bias in (True, False)),
    ]
    assert [recipe.milestones for recipe in recipes[:2]] == [[2], [3, 4]]
    assert found.arms[1].name == "se_resnet20-stages-2-3-bias-true-milestones-3-4"


def test_names_that_a_folder_does_not_tell_apart(tmp_path: Path) -> None:
    found = study(tmp_path, '[grid]\nnetwork = "se_resnet20"\nat = ["*.bn2", "-bn2"]\n')
    assert [arm.name for arm in found.arms] == ["se_resnet20-at-.bn2", "se_resnet20-at-bn2"]
    found = study(tmp_path, '[grid]\nnetwork = "se_resnet20"\nat = ["*bn2", "-bn2"]\n')
    assert [arm.name for arm in found.arms] == ["se_resnet20-at-bn2", "se_resnet20-at-bn2-2"]
    assert len({arm.settings for arm in found.arms}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid\n", "mine.toml: it is not TOML"),
        ("title = 'x'\n", r"the table \[grid\] is missing: expected keys with values"),
        ("grid = 3\n", r"the table \[grid\] is missing: expected keys with values"),
        ("[gird]\nlr = [1]\n", "mine.toml: unknown key 'gird'; did you mean 'grid'"),
        ("[grid]\nreductoin = [4]\n", "mine.toml: unknown key 'reductoin'; did you mean 'reduction'"),
        ("[grid]\nepoch = [4]\n", "unknown key 'epoch'; did you mean 'epochs'"),
        ("[grid]\nlr = [0.1]\n", "no network: give --network NAME, or network = "),
        ("[grid]\nnetwork = ['resnet21']\n", "unknown network 'resnet21'; did you mean"),
        ("[grid]\nnetwork = [3]\n", "network must be a list of names of networks, got 3"),
        ("[grid]\nnetwork.drop_rate = [0.1]\n", 'a grid has options of the network in quotes: "network.drop_rate"'),
        ("[grid]\nseed = [1, 2]\n", "a grid has no seeds: give --seeds N"),
        ("[grid]\nnetwork = 'resnet20'\nlr = []\n", "lr has no values"),
        ("[grid]\nnetwork = 'resnet20'\nlr = [0.1, 0.1]\n", r"lr has a value twice: \[0.1, 0.1\]"),
        ("[grid]\nnetwork = 'se_resnet20'\nreduction = [4, 4.0]\n", r"reduction has a value twice: \[4, 4.0\]"),
        (
            "[grid]\nnetwork = 'se_resnet20'\nreduction = 4\n'network.reduction' = 8\n",
            "network.reduction is in the grid twice, under two names; leave one out",
        ),
        (f"[grid]\nlr = {'[' * 3000}1{']' * 3000}\n", "mine.toml: it is nested too deeply"),
        (
            f"[grid]\nnetwork = 'resnet20'\nlr = {'9' * 400}\n",
            "grid.lr must be a number of at most 64 bits, got a number of 1329 bits",
        ),
        (
            f"[grid]\nnetwork = 'resnet20'\nlr = {'9' * 5000}\n",
            "mine.toml: line 3 \\(lr = ...\\) has a number of 5,000 digits",
        ),
        (
            f"[grid]\nnetwork = 'resnet20'\nlr = {list(range(1, 401))}\nbatch = {list(range(1, 501))}\n",
            "the grid has 200,000 combinations, the maximum is 1,000 arms; leave out values",
        ),
        ("[grid]\nnetwork = 'resnet20'\nlr = ['high']\n", "lr must be a number, got 'high'"),
        ("[grid]\nnetwork = 'resnet20'\nmilestones = [10, 15]\n", "milestones must be a list of whole numbers, got 10"),
        ("[grid]\nnetwork = 'resnet20'\nreduction = [1979-05-27]\n", "network.reduction must be text, a number"),
        ("[grid]\nnetwork = 'resnet20'\nstages = [[[1]]]\n", "network.stages must be text, .* got \\[\\[1\\]\\]"),
        ("baseline = 'plan'\n[grid]\nnetwork = 'resnet20'\n", "baseline: unknown arm 'plan'"),
        ("title = 3\n[grid]\nnetwork = 'resnet20'\n", "title must be text, got 3"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(tmp_path, text)


def test_a_mark_before_the_text(tmp_path: Path) -> None:
    found = study(tmp_path, "\ufefftitle = 'x'\n[grid]\nnetwork = 'resnet20'\n")
    assert found.title == "x"


def test_refuses_two_ways_to_have_a_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out --network resnet32"):
        study(tmp_path, "[grid]\nnetwork = 'resnet20'\n", "resnet32")
