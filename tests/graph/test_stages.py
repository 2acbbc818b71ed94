import pytest

from senet.graph.stages import UnitStages, block_stages, octaves, stage_of_stride


@pytest.mark.parametrize(
    ("size", "spatial", "expected"),
    [
        ((64, 64), (16, 16), 2.0),
        ((16, 64, 64), (16, 16, 16), 4 / 3),  # strides (1, 4, 4)
        ((64, 32), (64, 8), 1.0),  # strides (1, 4): the geometric mean is 2
        ((8,), (16,), 0.0),
        ((8, 8), (8,), None),
        ((), (), None),
    ],
)
def test_octaves_are_those_of_the_geometric_mean(
    size: tuple[int, ...], spatial: tuple[int, ...], expected: float | None
) -> None:
    found = octaves(size, spatial)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_containers_of_units_are_numbered_under_their_parent() -> None:
    stages = UnitStages()
    names = ["layer1.0", "layer1.1", "layer2.0", "body.a.0", "body.b.0", "layer1.2"]
    assert [stages.next(name) for name in names] == [2, 2, 3, 2, 3, 2]


@pytest.mark.parametrize(("octaves", "first", "stage"), [(0.0, 0, 0), (2.0, 1, 3), (7 / 3, 0, 2), (11 / 3, 0, 4)])
def test_stage_of_a_stride(octaves: float, first: int, stage: int) -> None:
    assert stage_of_stride(octaves, first) == stage


def test_stages_of_blocks() -> None:
    blocks = [
        ("conv", (8, 8), 9),  # as large as the image: the stem is 1 all the same
        ("layer1.0", (8, 8), 9),
        ("pool", (2, 2), 0),  # multiplies nothing: the stage of the block before it
        ("conv2", (4, 4), 9),
        ("layer2", (2, 2), 9),
        ("norm", (2, 2), 9),  # of the size of a unit's map
        ("squeeze", (1, 1), 9),
        ("fc", (), 9),
    ]
    assert block_stages(blocks, (8, 8), {"layer1.0": 2, "layer2.0": 3}) == [1, 2, 2, 2, 3, 3, None, None]


def test_a_pool_has_the_stage_of_the_block_before_it() -> None:
    """As in a ResNet: the stem and its pool are stage 1, and a convolution of the pool's size is stage 2."""
    blocks = [("conv1", (16, 16), 9), ("pool", (8, 8), 0), ("conv2", (8, 8), 9), ("conv3", (4, 4), 9)]
    assert block_stages(blocks, (32, 32), {}) == [1, 1, 2, 3]
