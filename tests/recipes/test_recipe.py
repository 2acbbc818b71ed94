from dataclasses import replace
from typing import Any

import pytest

from senet.data import Augmentation, Preprocessing
from senet.recipes import Recipe, load_recipe
from senet.recipes.recipe import build_recipe

LEAST: dict[str, Any] = {"epochs": 10, "batch": 8, "lr": 0.1}


def test_least_that_a_recipe_says() -> None:
    recipe = build_recipe(LEAST)
    assert recipe == Recipe(epochs=10, batch=8, lr=0.1)
    assert (recipe.optimizer, recipe.momentum, recipe.nesterov, recipe.weight_decay) == ("sgd", 0.9, False, 1e-4)
    assert (recipe.schedule, recipe.precision, recipe.on_nonfinite, recipe.train_only) == (
        "step",
        "fp32",
        "stop",
        "all",
    )
    # What is not asked for is off.
    for key in ("label_smoothing", "mixup", "cutmix", "ema", "freeze_bn_epochs", "base_batch_size", "warmup"):
        assert getattr(recipe, key) == 0, key
    assert (recipe.accumulate, recipe.se_lr_factor, recipe.randaugment, recipe.compile) == (1, 1.0, "", False)


def test_preprocessing_and_augmentation_are_of_its_keys() -> None:
    recipe = Recipe(
        **LEAST,
        resize=40,
        crop_size=32,
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
        interpolation="bicubic",
        crop="pad",
        flip=True,
        padding=3,
        randaugment="rand-m9-n1",
    )
    assert recipe.preprocessing == Preprocessing(40, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    assert recipe.augmentation == Augmentation("pad", True, 3, "rand-m9-n1")


POLICY = r"randaugment must be timm's name of a policy, such as 'rand-m9-n2-mstd0.5-inc1' .*, got "


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"accumulate": 0}, "accumulate must be 1 or more, got 0"),
        ({"accumulate": 9}, "accumulate must be at most batch=8, got 9"),
        ({"optimizer": "adamv"}, "unknown optimizer 'adamv'; did you mean 'adam"),
        ({"optimizer": ""}, "unknown optimizer ''"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov needs optimizer 'sgd' .* got 'adamw' and 0.9"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs .* a momentum above 0, got 'sgd' and 0"),
        ({"momentum": 1.0}, "momentum must be below 1, got 1.0"),
        ({"momentum": -0.1}, "momentum must be 0 or more, and finite, got -0.1"),
        ({"lr": -1}, "lr must be 0 or more, and finite, got -1"),
        ({"lr": float("nan")}, "lr must be 0 or more, and finite, got nan"),
        ({"lr": float("inf")}, "lr must be 0 or more, and finite, got inf"),
        ({"base_batch_size": -8}, "base_batch_size must be 0 or more, got -8"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more"),
        ({"train_only": "SE"}, "unknown train_only 'SE'; did you mean 'se'.*Choose from: all, se"),
        ({"se_lr_factor": -2.0}, "se_lr_factor must be 0 or more, and finite, got -2.0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'.*step, one_cycle, cosine, plateau"),
        ({"schedule": "one_cycle"}, "warmup must be above 0 and below epochs=10, got 0.0; set both"),
        ({"schedule": "one_cycle", "warmup": 10}, "warmup must be above 0 and below epochs=10, got 10"),
        ({"schedule": "cosine", "warmup": 10}, "warmup must be below epochs=10, got 10; set both, such as warmup=2.5"),
        ({"milestones": [-1]}, r"milestones must be epochs, 0 or more, got \[-1\]"),
        ({"drop_factor": 0.0}, "drop_factor must be between 0 and 1, got 0.0"),
        ({"drop_factor": 1.0}, "drop_factor must be between 0 and 1, got 1.0"),
        ({"drop_factor": float("nan")}, "drop_factor must be between 0 and 1, got nan"),
        ({"patience": -1}, "patience must be 0 or more"),
        ({"warmup": -1}, "warmup must be 0 or more"),
        ({"freeze_bn_epochs": -1}, "freeze_bn_epochs must be 0 or more"),
        ({"freeze_bn_epochs": 11}, "freeze_bn_epochs must be at most epochs=10, got 11"),
        ({"label_smoothing": 1.0}, "label_smoothing must be below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be 0 or more"),
        ({"mixup": -0.2}, "mixup must be 0 or more, and finite, got -0.2"),
        ({"cutmix": float("inf")}, "cutmix must be 0 or more, and finite, got inf"),
        ({"class_weights": "even"}, "unknown class_weights 'even'.*Choose from: none, balanced"),
        ({"sampling": "balance"}, "unknown sampling 'balance'; did you mean 'balanced'"),
        ({"ema": 1.0}, "ema must be below 1, got 1.0"),
        ({"ema": -0.5}, "ema must be 0 or more"),
        ({"randaugment": "foo"}, POLICY + "'foo'"),
        ({"randaugment": "rand-m9-x3"}, POLICY + "'rand-m9-x3'"),
        ({"randaugment": "rand-m9.5"}, POLICY + "'rand-m9.5'"),
        ({"randaugment": "augmix-m5"}, POLICY + "'augmix-m5'"),
        # What timm passes over in silence.
        ({"randaugment": "rand-hello"}, POLICY + "'rand-hello'"),
        ({"randaugment": "rand-m"}, POLICY + "'rand-m'"),
        ({"randaugment": "rand-tfoo"}, POLICY + "'rand-tfoo'"),
        ({"workers": -2}, "workers must be 0 or more, or -1 for one per core, got -2"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63, got 9223372036854775808"),
        ({"device": "gpu"}, "unknown device 'gpu'.*Choose from: auto, cpu, cuda, mps"),
        ({"precision": "float16"}, "unknown precision 'float16'.*Choose from: fp32, bf16, fp16"),
        ({"on_nonfinite": "ignore"}, "unknown on_nonfinite 'ignore'.*Choose from: stop, skip"),
        ({"checkpoint_every": -1}, "checkpoint_every must be 0 or more"),
        ({"crop": "padd"}, "unknown crop 'padd'; did you mean 'pad'"),
        ({"padding": -1}, "padding must be 0 pixels or more, got -1"),
        ({"crop_size": 0}, "resize and crop must be 1 pixel or more"),
        ({"mean": [0.5]}, "mean and std must have 1 or 3 values each"),
        ({"std": [0.0, 0.1, 0.1]}, "std above 0"),
        (
            {"interpolation": "cubic"},
            "unknown interpolation 'cubic'; did you mean 'bicubic'.*Choose from: nearest, bilinear, bicubic, lanczos",
        ),
        ({"iterations": -1}, "iterations must be 0 or more"),
        ({"iterations": 10}, "epochs=10 and iterations=10 both give the length of training; set one of them to 0"),
        ({"scales": [320]}, r"scales=\[320\] needs task=detection, got task=classification; leave scales out"),
        (
            {"epochs": 0, "iterations": 9, "freeze_bn_epochs": 1},
            "freeze_bn_epochs=1 counts epochs, and iterations=9 has",
        ),
        (
            {"epochs": 0, "iterations": 9, "schedule": "cosine", "warmup": 9},
            "warmup must be below iterations=9, got 9; set both",
        ),
    ],
    ids=str,
)
def test_refuses_values_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**LEAST | values)
    with pytest.raises(ValueError, match=message):
        replace(Recipe(**LEAST), **values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch", 3, "unknown key 'epoch'; did you mean 'epochs'"),
        ("optimizr", "sgd", "unknown key 'optimizr'; did you mean 'optimizer'"),
        ("batch_size", 64, r"unknown key 'batch_size'; did you mean 'batch'\? senet\.Recipe lists all\."),
        ("learning_rate", 0.1, r"unknown key 'learning_rate'; did you mean 'lr'\? senet\.Recipe lists all\."),
        ("zzz", 1, r"unknown key 'zzz'\. senet\.Recipe lists all\."),
        ("epochs", 2.5, "epochs must be a whole number, got 2.5"),
        ("epochs", True, "epochs must be a whole number, got True"),
        ("accumulate", 2.0, "accumulate must be a whole number, got 2.0"),
        ("freeze_bn_epochs", 0.5, "freeze_bn_epochs must be a whole number, got 0.5"),
        ("lr", "fast", "lr must be a number, got 'fast'"),
        ("lr", True, "lr must be a number, got True"),
        ("ema", "yes", "ema must be a number, got 'yes'"),
        ("flip", 1, "flip must be true or false, got 1"),
        ("compile", "true", "compile must be true or false, got 'true'"),
        ("randaugment", 9, "randaugment must be text, got 9"),
        ("train_only", True, "train_only must be text, got True"),
        ("milestones", 3, "milestones must be a list of whole numbers, got 3"),
        ("milestones", [1, True], r"milestones must be a list of whole numbers, got \[1, True\]"),
        ("mean", 0.5, "mean must be a list of numbers, got 0.5"),
        ("network", 3, "network must be a table, got 3"),
    ],
)
def test_refuses_keys_and_types_that_cannot_be(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_recipe({**LEAST, key: value})


def test_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match="the recipe lacks epochs, batch"):
        build_recipe({"lr": 0.1})


@pytest.mark.parametrize(
    "values",
    [
        {"accumulate": 8},
        {"schedule": "cosine"},
        {"schedule": "cosine", "warmup": 9.5},
        {"schedule": "one_cycle", "warmup": 0.25},
        {"freeze_bn_epochs": 10},
        {"optimizer": "adamw", "momentum": 0.0},
        {"randaugment": "rand-m7-mstd0.5-inc1"},
        {"ema": 0.9999, "mixup": 0.2, "cutmix": 1.0},
        {"seed": 2**63 - 1},
        {"drop_factor": 0.5, "patience": 0, "schedule": "plateau"},
        {"mean": [0.5], "std": [0.5]},
    ],
    ids=str,
)
def test_takes_values_that_can_be(values: dict[str, Any]) -> None:
    recipe = build_recipe(LEAST | values)
    assert all(getattr(recipe, key) == value for key, value in values.items())


def test_recipe_cannot_be_changed_without_its_checks() -> None:
    with pytest.raises(AttributeError, match="cannot assign to field 'lr'"):
        load_recipe("cifar").lr = -1  # type: ignore[misc]
