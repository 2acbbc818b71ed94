import pytest

from senet.paper import COST_TABLES, ENTRIES, SPEED, TITLES, Entry, entries, fitting

ALL = [pytest.param(entry, id=f"{entry.table}-{entry.label}") for entry in ENTRIES]


@pytest.mark.parametrize("entry", ALL)
def test_every_line_says_something_that_can_be(entry: Entry) -> None:
    assert entry.table in TITLES
    errors = [error for error in (entry.top1, entry.top5, *(entry.original or ())) if error is not None]
    assert errors or entry.precision
    assert all(1 < error < 50 for error in errors)
    if entry.top1 is not None and entry.top5 is not None:
        assert entry.top5 < entry.top1
    assert (entry.macs is None) or entry.macs_digit
    assert (entry.params is None) or entry.params_digit
    assert (entry.table in COST_TABLES) == (entry.macs is not None or entry.params is not None)


@pytest.mark.parametrize("entry", ALL)
def test_figures_have_the_digits_that_they_are_said_to_have(entry: Entry) -> None:
    for figure, digit in ((entry.macs, entry.macs_digit), (entry.params, entry.params_digit)):
        if figure is not None:
            assert figure / digit == pytest.approx(round(figure / digit), abs=1e-6)


@pytest.mark.parametrize("table", ["2", "3", "4", "5", "6", "schedule"])
def test_se_is_better_than_its_twin_and_costs_little(table: str) -> None:
    lines = {entry.network: entry for entry in entries(table) if entry.network}
    twins = [(lines[name], lines[f"se_{name}"]) for name in lines if not name.startswith("se_")]
    assert 2 * len(twins) == len(lines)
    for plain, with_se in twins:
        assert with_se.label == f"SE-{plain.label}"
        assert with_se.top1 is not None
        assert plain.top1 is not None
        assert with_se.top1 < plain.top1
        if plain.macs and with_se.macs:
            assert 1 < with_se.macs / plain.macs < 1.02
        if plain.params and with_se.params:
            assert with_se.params > plain.params


def test_ablations_share_their_baseline() -> None:
    """The network with nothing but the paper's defaults is a line of each of these tables, always the same."""
    lines = [entry for entry in ENTRIES if dict(entry.options) == {"bias": False}]
    assert [entry.table for entry in lines] == ["10", "11", "12", "13", "14"]
    assert {(entry.top1, entry.top5) for entry in lines} == {(22.28, 6.03)}


def test_parameters_of_the_ablations_follow_from_section_3() -> None:
    """25.557 M of ResNet-50, and (2/r) times the sum of N C^2, by units and channels of its stages."""
    stages = {2: (3, 256), 3: (4, 512), 4: (6, 1024), 5: (3, 2048)}
    found = 0
    for entry in entries("10", "13"):
        if entry.params_mismatch or entry.network != "se_resnet50":
            continue
        only = entry.options.get("stages")
        squares = sum(units * channels**2 for stage, (units, channels) in stages.items() if only in (None, stage))
        weights = 25_557_032 + 2 * squares // entry.options.get("reduction", 16) + 53_120 * entry.statistics
        assert entry.params is not None
        assert round(weights / 1e5) == round(entry.params / 1e5)
        found += 1
    assert found == 8


def test_entries_of_a_network() -> None:
    assert [entry.table for entry in fitting("se_resnet50", {})] == ["2", "7", "release", "schedule"]
    assert [entry.table for entry in fitting("se_resnet50", {}, COST_TABLES)] == ["2", "release"]
    assert [entry.label for entry in fitting("se_resnet50", {"reduction": 8, "bias": False})] == ["r = 8"]
    assert fitting("se_resnet50", {"reduction": 8}) == []
    assert entries() == list(ENTRIES)


def test_speed() -> None:
    assert {mode: round(with_se / plain, 2) for mode, (plain, with_se) in SPEED.items()} == {
        "train": 1.1,
        "infer": 1.02,
    }
