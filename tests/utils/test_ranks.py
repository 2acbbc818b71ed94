"""The place of a process among those that torchrun started."""

import pytest

from senet.utils.ranks import is_alone, is_first, rank_and_world_size


@pytest.mark.parametrize(
    ("rank", "world", "message"),
    [
        ("a", "2", "RANK='a' in the environment is no number"),
        ("0", "-1", "WORLD_SIZE='-1' in the environment is no number"),
        (None, "2", "WORLD_SIZE=2 is in the environment without RANK"),
        ("2", "2", "RANK=2 and WORLD_SIZE=2 are in the environment: ranks go from 0 to 1"),
    ],
)
def test_an_environment_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, world: str, message: str
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=message):
        rank_and_world_size()


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (rank_and_world_size(), is_alone(), is_first()) == ((0, 1), True, True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (rank_and_world_size(), is_alone(), is_first()) == ((1, 3), False, False)
