import inspect
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senet.recipes import Recipe, list_recipes, load_recipe, recipe_heading, recipe_text, write_recipe

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put a recipe's text into a folder."""

    def put(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return put


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
        ("milestones=[1, 2]", "milestones", [1, 2]),
        ("randaugment=rand-m9-n2", "randaugment", "rand-m9-n2"),
        ("network.reduction=4", "network", {"reduction": 4}),
        ("network.placement=pre", "network", {"placement": "pre"}),
        ("network.stages=[3, 4]", "network", {"stages": [3, 4]}),
    ],
)
def test_settings(setting: str, key: str, value: object) -> None:
    changed = asdict(load_recipe("cifar", [setting]))
    assert changed[key] == value
    shortened = {"milestones": [2, 3]} if key == "epochs" else {}
    assert changed == asdict(load_recipe("cifar")) | {key: value} | shortened


def test_later_settings_win_and_tables_add_up() -> None:
    recipe = load_recipe("cifar", ["lr=1", "lr=2", "network.reduction=4", "network.gate=tanh"])
    assert recipe.lr == 2
    assert recipe.network == {"reduction": 4, "gate": "tanh"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("network=3", "network must be a table, got 3"),
        ("optimizer.lr=3", r"unknown key 'optimizer.lr'; a recipe has one table, \[network\]"),
        ("network.=3", r"unknown key 'network.'"),
        ("epochs", "invalid --set 'epochs': expected KEY=VALUE, such as epochs=30"),
        ("=3", "invalid --set '=3': expected KEY=VALUE"),
        ("epochs=0", "epochs must be 1 or more, got 0"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("accumulate=129", "accumulate must be at most batch=128, got 129"),
        ("nesterov=true momentum=0", "nesterov must be true or false"),
    ],
)
def test_refuses_settings(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("cifar", [setting])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "mine.toml: (it is not TOML|byte 2 is not UTF-8)"),
        ("batch = 3\nlr = 1\nepoch = 1", "unknown key 'epoch'"),
        ("lr = 0.1", "the recipe lacks epochs, batch"),
        ("base = 3", "base must be the name or the file of a recipe, got 3 in .*mine.toml"),
        ('base = ["cifar"]', r"base must be the name or the file of a recipe, got \['cifar'\]"),
        ('base = "cifra"', "unknown recipe 'cifra'; did you mean 'cifar'.*ends in .toml"),
        ('base = "other.toml"', "no recipe file at .*other.toml"),
        ('base = "mine.toml"', r"the recipe .*mine.toml is its own base, through .*mine.toml; remove one base"),
        ('base = "cifar"\nnetwork = 3', "network must be a table, got 3"),
        ('base = "cifar"\nlr = -1', "lr must be 0 or more, and finite, got -1"),
    ],
)
def test_refuses_files(write: Write, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(write("mine.toml", text))


def test_refuses_what_is_not_there_or_no_text(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe file at .*mine.toml"):
        load_recipe(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b"# \xff\nepochs = 1\n")
    with pytest.raises(ValueError, match="mine.toml: (it is not TOML|byte 2 is not UTF-8)"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize("read", [load_recipe, recipe_heading])
def test_unknown_recipe_names_the_nearest(read: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'cifar_short'; did you mean 'cifar-short'.*ends in .toml"):
        read("cifar_short")


@pytest.mark.parametrize("settings", [["network=3", "network.reduction=4"], ["network.reduction=4"], []])
def test_network_that_is_no_table(write: Write, settings: list[str]) -> None:
    with pytest.raises(ValueError, match="network must be a table, got 3"):
        load_recipe(write("mine.toml", "epochs = 1\nbatch = 1\nlr = 1\nnetwork = 3\n"), settings)


def test_fewer_iterations_shorten_what_is_measured_in_them() -> None:
    notes: list[str] = []
    recipe = load_recipe("coco-2x", ["iterations=900"], note=notes.append)
    assert (recipe.warmup, recipe.milestones) == (3, [600, 800])
    assert notes[0] == "iterations=900 of 180000: warmup is shortened in proportion, 500 -> 3"


def test_epochs_replace_iterations_with_all_that_is_measured_in_them(write: Write) -> None:
    message = "epochs replaces iterations=180000, in which the recipe has warmup and milestones: set these as well"
    with pytest.raises(ValueError, match=message):
        load_recipe("coco-2x", ["epochs=24", "iterations=0"])
    recipe = load_recipe("coco-2x", ["epochs=24", "iterations=0", "warmup=0.1", "milestones=[16,21]"])
    assert (recipe.epochs, recipe.iterations, recipe.milestones) == (24, 0, [16, 21])
    message = "iterations replaces epochs=164, in which the recipe has milestones"
    with pytest.raises(ValueError, match=message):
        load_recipe(write("mine.toml", 'base = "cifar"\niterations = 64000\nepochs = 0\n'))
    with pytest.raises(ValueError, match="epochs=12 and iterations=180000 both give the length of training"):
        load_recipe("coco-2x", ["epochs=12"])


def test_base_by_name(write: Write) -> None:
    mine = load_recipe(write("mine.toml", 'base = "cifar"\nlr = 0.2\ndrops = [3]\n'))
    assert mine == replace(load_recipe("cifar"), lr=0.2, milestones=[3])  # lists are replaced


def test_base_is_relative_to_the_file_not_to_the_working_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("cifar.toml", "epochs = 7\nbatch = 3\nlr = 1\n")
    write("sub/one.toml", 'base = "../cifar.toml"\nbatch = 4\n')
    two = write("sub/two.toml", 'base = "one.toml"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_recipe(two) == Recipe(epochs=7, batch=4, lr=1)
    assert load_recipe("../sub/two.toml") == load_recipe(two)
    # A name is a recipe that senet has, whatever files lie about.
    monkeypatch.chdir(tmp_path)
    assert load_recipe("cifar").epochs == 164


def test_bases_add_up_and_the_nearest_wins(write: Write) -> None:
    write("a.toml", 'base = "senet154"\nlr = 0.5\nseed = 1\n[network]\nreduction = 8\ngate = "relu"\n')
    write("b.toml", 'base = "a.toml"\nlr = 0.25\n[network]\nreduction = 4\n')
    mine = load_recipe(write("c.toml", 'base = "b.toml"\nepochs = 9\n'), ["lr=0.125", "network.bias=false"])
    assert (mine.epochs, mine.lr, mine.seed, mine.batch) == (9, 0.125, 1, 2048)
    # drop_rate is senet154's.
    assert mine.network == {"drop_rate": 0.2, "gate": "relu", "reduction": 4, "bias": False}
    assert load_recipe("senet154").network == {"drop_rate": 0.2}


def test_bases_in_a_circle(write: Write) -> None:
    write("a.toml", 'base = "b.toml"\n')
    write("b.toml", 'base = "c.toml"\n')
    path = write("c.toml", 'base = "a.toml"\nepochs = 1\nbatch = 1\nlr = 1\n')
    with pytest.raises(ValueError, match=r"the recipe .*c.toml is its own base, through .*c.toml, .*a.toml, .*b.toml"):
        load_recipe(path)


def test_a_circle_that_is_spelt_otherwise(write: Write, tmp_path: Path) -> None:
    path = write("a.toml", f'base = "../{tmp_path.name}/a.toml"\n')
    with pytest.raises(ValueError, match="is its own base"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["a\x07b", "a\udcffb", "a\nb", "höhle"], ids=ascii)
def test_heading_with_what_toml_cannot_say(tmp_path: Path, name: str) -> None:
    """The data may lie in a folder whose name is no UTF-8."""
    recipe = load_recipe("digits")
    write_recipe(recipe, tmp_path / "recipe.toml", data=name)
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_one_base_of_two_recipes_is_no_circle(write: Write) -> None:
    write("common.toml", 'base = "cifar"\n')
    for name in ("a", "b"):
        assert load_recipe(write(f"{name}.toml", 'base = "common.toml"\n')) == load_recipe("cifar")


def test_base_is_not_among_what_is_written(write: Write) -> None:
    path = write("mine.toml", 'base = "wrn"\nlr = 0.3\n')
    read = tomllib.loads(recipe_text(load_recipe(path)))
    assert "base" not in read
    assert read["milestones"] == [60, 120, 160]


def test_every_key_has_its_meaning() -> None:
    assert all(len(one.metadata["help"]) > 5 and one.metadata["help"].endswith(".") for one in fields(Recipe))


def test_the_docstring_lists_what_the_fields_say() -> None:
    attributes, raises = (inspect.getdoc(Recipe) or "").partition("Attributes:\n")[2].split("\n\nRaises:\n")
    raises = raises.partition("\n\nExamples:\n")[0]  # which another test runs
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=    \w)", attributes)]
    assert entries == [f"{one.name}: {one.metadata['help']}" for one in fields(Recipe)]
    errors = ["ValueError: a value is invalid.", "TypeError: an unknown key; the message names the closest one."]
    assert [line.strip() for line in raises.strip().splitlines()] == errors


def test_comments_need_no_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which `python -OO` removes."""
    text = recipe_text(load_recipe("cifar"))
    monkeypatch.setattr(Recipe, "__doc__", None)
    assert recipe_text(load_recipe("cifar")) == text


@pytest.mark.parametrize("name", list_recipes())
def test_text_has_every_key_once_under_its_meaning(name: str) -> None:
    recipe = load_recipe(name, ["network.reduction=8"])
    lines = recipe_text(recipe).splitlines()
    for key, meaning in ((one.name, one.metadata["help"]) for one in fields(Recipe)):
        line = "[network]" if key == "network" else f"{key} = "
        (place,) = (n for n, text in enumerate(lines) if text.startswith(line))
        above: list[Any] = []
        at = place - 1
        while at >= 0 and lines[at].startswith("#"):
            above.insert(0, lines[at].removeprefix("#").strip())
            at -= 1
        assert " ".join(above) == meaning, key
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", list_recipes())
def test_text_of_what_senet_has_reads_back(name: str, tmp_path: Path) -> None:
    write_recipe(load_recipe(name), tmp_path / "recipe.toml")
    assert load_recipe(tmp_path / "recipe.toml") == load_recipe(name)


FINITE = st.floats(0, 1e6)
SHARE = st.floats(0, 1, exclude_max=True)
RECIPES = st.fixed_dictionaries(
    {
        "epochs": st.integers(50, 500),
        "batch": st.integers(16, 4096),
        "lr": FINITE | st.integers(0, 9),
        "accumulate": st.integers(1, 16),
        "seed": st.integers(0, 2**63 - 1),
        "optimizer": st.sampled_from(["sgd", "adamw", "lamb"]),
        "momentum": SHARE,
        "weight_decay": FINITE,
        "milestones": st.lists(st.integers(0, 500)),
        "drop_factor": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "schedule": st.sampled_from(["step", "cosine", "plateau"]),
        "warmup": st.floats(0, 49),
        "freeze_bn_epochs": st.integers(0, 50),
        "ema": SHARE,
        "mean": st.lists(st.floats(0, 1), min_size=3, max_size=3),
        "std": st.lists(st.floats(0, 1, exclude_min=True), min_size=3, max_size=3),
        "flip": st.booleans(),
        "randaugment": st.sampled_from(["", "rand-m7-mstd0.5-inc1"]),
        "network": st.dictionaries(
            st.text(min_size=1),
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | FINITE | st.text() | st.lists(st.integers(0, 9)),
            max_size=3,
        ),
    }
)


@settings(deadline=None)
@given(RECIPES, st.text())
def test_text_reads_back(values: dict[str, Any], heading: str) -> None:
    recipe = Recipe(**values)
    # TOML has no control characters in comments.
    heading = "".join(letter for letter in heading if letter.isprintable() or letter == "\n")
    read = tomllib.loads(recipe_text(recipe, heading))
    assert Recipe(**read) == recipe
    assert all(type(read[key]) is type(value) for key, value in values.items() if key != "network")
    assert math.copysign(1, read["lr"]) == math.copysign(1, recipe.lr)


def test_written_recipe_says_what_it_was_for(tmp_path: Path) -> None:
    recipe = load_recipe("digits", ["network.reduction=4", "network.at=layer1.*", "lr=0.3"])
    write_recipe(recipe, tmp_path / "recipe.toml", network="se_resnet20", data="digits")
    assert load_recipe(tmp_path / "recipe.toml") == recipe
    assert recipe_heading(tmp_path / "recipe.toml") == "network = se_resnet20\ndata = digits"
    assert (
        (tmp_path / "recipe.toml")
        .read_text()
        .startswith("# network = se_resnet20\n# data = digits\n\n# what the network is trained for")
    )


def test_written_recipe_says_in_toml_what_python_says_otherwise(tmp_path: Path) -> None:
    """Options that `create_model` takes and TOML has no word for: sets, paths and None."""
    network = {"stages": {4, 3}, "at": None, "weights": tmp_path / "model.pth", "gate": "relu"}
    write_recipe(replace(load_recipe("digits"), network=network), tmp_path / "recipe.toml")
    read = load_recipe(tmp_path / "recipe.toml").network
    assert read == {"stages": [3, 4], "weights": str(tmp_path / "model.pth"), "gate": "relu"}


@pytest.mark.parametrize("name", list_recipes())
def test_heading_of_what_senet_has(name: str) -> None:
    heading = recipe_heading(name)
    assert len(heading) > 40
    assert "=" not in heading.splitlines()[0]
    assert heading.endswith(".")


def test_heading_of_a_file_without(write: Write) -> None:
    assert recipe_heading(write("mine.toml", "epochs = 1\n# batch = 3\n")) == ""
    assert recipe_heading(write("mine.toml", "# One\n#   line\nepochs = 1\n# no more")) == "One\nline"


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        ("digits", ["epochs=2"], {"epochs": 2, "warmup": 0.5}),
        ("digits", ["epochs=2", "warmup=1"], {"epochs": 2, "warmup": 1}),
        ("digits", ["epochs=24"], {"epochs": 24, "warmup": 3}),  # more are as they were
        ("imagenet", ["epochs=10"], {"epochs": 10, "milestones": [3, 6, 9]}),
        ("imagenet", ["epochs=1"], {"epochs": 1, "milestones": [1, 1, 1]}),  # none at the start
        ("imagenet", ["epochs=10", "milestones=[5]"], {"epochs": 10, "milestones": [5]}),
        ("senet154", ["epochs=20"], {"epochs": 20, "milestones": [6, 12, 18], "freeze_bn_epochs": 1}),
    ],
)
def test_fewer_epochs_shorten_what_is_measured_in_them(
    recipe: str, changes: list[str], expected: dict[str, Any]
) -> None:
    before = load_recipe(recipe)
    assert asdict(load_recipe(recipe, changes)) == asdict(before) | expected
    notes: list[str] = []
    found = load_recipe(recipe, changes, note=notes.append)
    keys = [key for key in ("warmup", "milestones", "freeze_bn_epochs") if f"{key}=" not in " ".join(changes)]
    values = [(key, getattr(before, key), getattr(found, key)) for key in keys]
    proportion = f"epochs={found.epochs} of {before.epochs}"
    assert notes == [
        f"{proportion}: {key} is shortened in proportion, {old} -> {new}" for key, old, new in values if old != new
    ]


def test_a_recipe_on_top_of_another_one_shortens_it(write: Any) -> None:
    shorter = load_recipe(write("short.toml", 'base = "digits"\nepochs = 4\n'), ["epochs=2"])
    assert (shorter.epochs, shorter.warmup) == (2, 0.5)
    assert load_recipe(write("own.toml", 'base = "digits"\nepochs = 4\nwarmup = 2\n')).warmup == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_recipe_of_another_editor(tmp_path: Path, encoding: str) -> None:
    text = '# ä\r\nbase = "cifar"\r\nepochs = 7\r\n'
    (tmp_path / "mine.toml").write_bytes(text.encode(encoding))
    assert load_recipe(tmp_path / "mine.toml").epochs == 7
    (tmp_path / "mine.toml").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="cannot read the recipe .*mine.toml: it is UTF-16 text; save it as UTF-8"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 20_000, "mine.toml: it is nested too deeply"),
        ("x = " + "{a = " * 20_000, "mine.toml: it is nested too deeply"),
        ("epochs = " + "1" * 5000, r"mine.toml: line 1 \(epochs = ...\) has a number of 5,000 digits"),
        ("epochs = 0x" + "f" * 5000, "mine.toml: epochs must be a number of at most 64 bits"),
        ("a." * 20_000 + "b = 1", "mine.toml: line 1 has more than 1,000 dots, which is the limit"),
        ("#" * 2**21, "mine.toml: it has more than 1,048,576 bytes, which is the limit"),
    ],
)
def test_hostile_recipes_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "mine.toml")


def test_number_of_thousands_of_digits_in_a_setting() -> None:
    with pytest.raises(ValueError, match="invalid --set epochs=...: .*4300 digits"):
        load_recipe("cifar", ["epochs=" + "1" * 5000])


def test_what_is_wrong_in_a_file_names_the_file(write: Any) -> None:
    """A command line may have two recipes: the key alone does not say which one has it."""
    path = write("mine.toml", 'epochs = 2\nbatch = 4\nlr = "fast"\n')
    with pytest.raises(ValueError, match=r"^the recipe .*mine\.toml: lr must be a number, got 'fast'"):
        load_recipe(path)
    with pytest.raises(ValueError, match=r"mine\.toml with --set lr=0\.1 --set epochs=0: epochs must be"):
        load_recipe(path, ["lr=0.1", "epochs=0"])
    with pytest.raises(ValueError, match=r"^the recipe .*more\.toml: unknown key 'epoch'; did you mean 'epochs'"):
        load_recipe(write("more.toml", 'base = "digits"\nepoch = 2\n'))
    with pytest.raises(ValueError, match=r"^epochs must be"):  # a recipe that senet has: it is the setting
        load_recipe("digits", ["epochs=0"])
