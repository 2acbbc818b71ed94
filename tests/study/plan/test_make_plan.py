"""Settings and networks that a plan refuses before anything is written."""

from pathlib import Path
from typing import Any

import pytest

from tests.study.plan.plans import planned


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ((), {"seeds": 0}, "seeds must be 1 or more, got 0"),
        (("seed=3",), {}, "give --seeds N instead of --set seed="),
        (("network.placement=post",), {}, "'placement' varies that itself: leave out --set network.placement=post"),
        (("epoch=3",), {}, "unknown key 'epoch'; did you mean 'epochs'"),
        (("network.reduction=0",), {}, "the arm 'standard' cannot be built: reduction must be"),
        (("network.drop_path=0.1",), {}, "the arm 'plain' cannot be built: .*drop_path_rate= here"),
        ((), {"network": "mobilenet"}, "the arm 'pre' cannot be built: "),
    ],
)
def test_refuses(tmp_path: Path, settings: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        planned(tmp_path, "placement", *settings, **options)
    assert not any(tmp_path.iterdir())


def test_refuses_a_recipe_that_has_what_is_varied(tmp_path: Path) -> None:
    """The arm r = 16 has no setting, and would be another one."""
    (tmp_path / "mine.toml").write_text('base = "digits"\n[network]\nreduction = 8\n')
    with pytest.raises(ValueError, match="'reduction' varies network.reduction itself: leave it out of the recipe"):
        planned(tmp_path, "reduction", recipe=str(tmp_path / "mine.toml"))


def test_init_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'init' needs network.weights: give --set network.weights="):
        planned(tmp_path, "init")


def test_a_reduction_without_a_hidden_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the arm 'attention-eca' cannot be built: .*reduction 8 has no effect"):
        planned(tmp_path, "attention", "network.reduction=8")


def test_a_gate_without_an_identity_init(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the arm 'gate-tanh' cannot be built: .*no identity initialization"):
        planned(tmp_path, "gate", "network.init=identity")
