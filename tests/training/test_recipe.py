from dataclasses import asdict, replace
from pathlib import Path

import pytest

from senet.training import Recipe, list_recipes, load_recipe, write_recipe


def test_shipped_recipes() -> None:
    assert list_recipes() == ["cifar", "cifar-short", "digits"]
    for name in list_recipes():
        assert isinstance(load_recipe(name), Recipe)
    cifar = load_recipe("cifar")
    assert (cifar.batch, cifar.lr, cifar.momentum, cifar.weight_decay) == (128, 0.1, 0.9, 1e-4)
    assert (cifar.epochs, cifar.drops, cifar.schedule) == (164, [82, 123], "step")
    assert (cifar.crop, cifar.padding, cifar.flip, cifar.decay_all) == ("pad", 4, True, True)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("lr=1e-2", "lr", 0.01),
        ("lr=1", "lr", 1),
        (" seed = 7", "seed", 7),
        ("crop=area", "crop", "area"),
        ('crop="none"', "crop", "none"),
        ("flip=false", "flip", False),
        ("drops=[1, 2]", "drops", [1, 2]),
        ("network.reduction=4", "network", {"reduction": 4}),
        ("network.placement=pre", "network", {"placement": "pre"}),
        ("network.stages=[3, 4]", "network", {"stages": [3, 4]}),
    ],
)
def test_settings(setting: str, key: str, value: object) -> None:
    changed = asdict(load_recipe("cifar", [setting]))
    assert changed[key] == value
    assert changed == asdict(load_recipe("cifar")) | {key: value}


def test_later_settings_win_and_tables_add_up() -> None:
    recipe = load_recipe("cifar", ["lr=1", "lr=2", "network.reduction=4", "network.gate=tanh"])
    assert recipe.lr == 2
    assert recipe.network == {"reduction": 4, "gate": "tanh"}


def test_written_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe("digits", ["network.reduction=4", "network.at=layer1.*", "lr=0.3"])
    write_recipe(recipe, tmp_path / "recipe.toml", network="se_resnet20")
    assert load_recipe(tmp_path / "recipe.toml") == recipe
    assert (tmp_path / "recipe.toml").read_text().startswith("# network = se_resnet20\nepochs = 12\n")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("network=3", "network must be a table, got 3"),
        ("optimiser.lr=3", r"unknown key 'optimiser.lr'; a recipe has one table, \[network\]"),
        ("network.=3", r"unknown key 'network.'"),
        ("epochs", "--set 'epochs' is to read KEY=VALUE, such as epochs=30"),
        ("=3", "--set '=3' is to read KEY=VALUE"),
        ("epochs=0", "epochs must be 1 or more, got 0"),
        ("epochs=2.5", "epochs must be a whole number, got 2.5"),
        ("epochs=true", "epochs must be a whole number, got True"),
        ("flip=1", "flip must be true or false, got 1"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("lr=-1", "lr must be 0 or more, and finite, got -1"),
        ("lr=nan", "lr must be 0 or more, and finite, got nan"),
        ("lr=inf", "lr must be 0 or more, and finite, got inf"),
        ("seed=-1", "seed must be 0 or more"),
        ("seed=9223372036854775808", r"seed must be below 2\*\*63, got 9223372036854775808"),
        ("schedule=cosin", "unknown schedule 'cosin'"),
        ("crop=padd", "unknown crop 'padd'; did you mean 'pad'"),
        ("drops=[1, true]", r"drops must be a list of whole numbers, got \[1, True\]"),
        ("drops=[-1]", r"drops must be epochs, 0 or more, got \[-1\]"),
        ("mean=0.5", r"mean must be a list of numbers, got 0.5"),
        ("mean=[0.5]", r"mean and std must have 1 or 3 values each"),
        ("std=[0.0, 0.1, 0.1]", "std above 0"),
        ("crop_size=0", "resize and crop must be 1 pixel or more"),
        ("interpolation=cubic", "interpolation must be .*bicubic.*'cubic'"),
        ("schedule=one_cycle", "warmup must be above 0 and below epochs=164, got 0.0"),
        ("nesterov=true momentum=0", "nesterov must be true or false"),
        ("label_smoothing=1.5", "label_smoothing must be below 1, got 1.5"),
    ],
)
def test_refuses_settings(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("cifar", [setting])


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0, got 0"):
        load_recipe("cifar", ["nesterov=true", "momentum=0"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is not TOML"),
        ("batch = 3\nlr = 1\nepoch = 1", "unknown key 'epoch'"),
        ("lr = 0.1", "the recipe lacks epochs, batch"),
        (None, "no recipe file at"),
    ],
)
def test_refuses_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'cifar_short'; did you mean 'cifar-short'.*ends in .toml"):
        load_recipe("cifar_short")


def test_written_recipe_says_in_toml_what_python_says_otherwise(tmp_path: Path) -> None:
    """Options that `create_model` takes and TOML has no word for: sets, paths and None."""
    network = {"stages": {4, 3}, "at": None, "weights": tmp_path / "model.pth", "gate": "relu"}
    write_recipe(replace(load_recipe("digits"), network=network), tmp_path / "recipe.toml")
    read = load_recipe(tmp_path / "recipe.toml").network
    assert read == {"stages": [3, 4], "weights": str(tmp_path / "model.pth"), "gate": "relu"}


@pytest.mark.parametrize("settings", [["network=3", "network.reduction=4"], ["network.reduction=4"], []])
def test_network_that_is_no_table(tmp_path: Path, settings: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 1\nbatch = 1\nlr = 1\nnetwork = 3\n")
    with pytest.raises(ValueError, match="network must be a table, got 3"):
        load_recipe(path, settings)
