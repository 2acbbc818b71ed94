from dataclasses import replace

import pytest

from senet.gates.diagnosis.ablation import Ablation, Interval
from senet.gates.diagnosis.diagnosis import BlockDiagnosis, Diagnosis
from senet.gates.report.summary import leading_block, summarize


def block(label: str, verdict: str, eta: float, *spans: tuple[float, float, float], by: str = "mean") -> BlockDiagnosis:
    """A block, with the change of the error in an ablation if there was one."""
    flat = Interval(0.0, 0.0, 0.0)
    done = tuple(
        Ablation(label, by, Interval(*span), flat, Interval(span[0] / 10, 0.0, 0.0), 0.1, 0.5) for span in spans
    )
    return BlockDiagnosis(label, label, 2, (verdict,), {"eta_squared_median": eta}, (), (), done)


def test_the_block_whose_ablation_costs_most() -> None:
    found = Diagnosis(
        (
            block("a", "constant", 0.04, (0.1, -0.2, 0.4)),
            block("b", "class-specific", 0.5, (0.85, 0.1, 1.97)),
            block("c", "class-specific", 0.9, (0.3, 0.1, 0.5)),
        ),
        (),
    )
    assert leading_block(found) == 1
    assert summarize(found) == (
        "b matters most: with its gates held at their means, the top-1 error rises by 0.85 points (+0.10 to +1.97). "
        "Of 3 blocks, 2 are class-specific (b, c) and 1 constant (a). "
        "The class explains 4 % of the variance of the gates in the first block and 90 % in the last."
    )


def test_an_effect_that_may_be_chance() -> None:
    found = Diagnosis(
        (block("a", "varied", 0.2, (0.0, 0.0, 0.0)), block("b", "stuck", 0.1, (0.5, 0.0, 1.0), by="one")), ()
    )
    assert summarize(found).startswith(
        "b matters most: with its gates held at 1, the top-1 error rises by 0.50 points (+0.00 to +1.00), which may be "
        "chance. Of 2 blocks, 1 is varied (a) and 1 stuck (b)."
    )


def test_equal_errors_are_decided_by_the_loss_and_then_by_the_classes() -> None:
    first, second = (block(label, "stuck", eta, (0.0, 0.0, 0.0)) for label, eta in (("a", 0.4), ("b", 0.6)))
    assert leading_block(Diagnosis((first, second), ())) == 1
    (ablation,) = first.ablations
    costly = replace(first, ablations=(replace(ablation, loss=Interval(0.2, 0.1, 0.3)),))
    found = Diagnosis((costly, second), ())
    assert leading_block(found) == 0
    assert summarize(found).startswith("Held at their means, the gates of no block raise the top-1 error.")


def test_without_ablations() -> None:
    found = Diagnosis(
        (block("a", "varied", 0.2), block("b", "class-specific", 0.8), block("c", "varied", float("nan"))), ()
    )
    assert leading_block(found) == 1
    assert summarize(found) == (
        "The gates of b depend most on the class: 80 % of their variance is between classes. "
        "Of 3 blocks, 2 are varied (a, c) and 1 class-specific (b)."
    )


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (
            block("a", "varied", 0.2, (1.0, 0.5, 1.5)),
            "a matters: with its gates held at their means, the top-1 error rises by 1.00 points (+0.50 to +1.50). "
            "The block is varied.",
        ),
        (
            block("a", "constant", 0.2, (-1.0, -1.5, 0.5)),
            "Held at their means, the gates of the block do not raise the top-1 error. The block is constant.",
        ),
        (block("a", "constant", float("nan")), "The block is constant."),
    ],
)
def test_one_block(one: BlockDiagnosis, text: str) -> None:
    assert summarize(Diagnosis((one,), ())) == text


def test_a_few_names_of_many() -> None:
    found = Diagnosis(tuple(block(f"b{n}", "varied", 0.5) for n in range(9)), ())
    assert "Of 9 blocks, 9 are varied (b0, b1, b2, b3 and 5 more)." in summarize(found)
