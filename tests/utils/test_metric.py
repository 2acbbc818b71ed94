import pytest

from senet.utils.metric import Metric

ERROR = Metric(key="top1_error", name="top-1 error", noun="error", unit="%")
SCORE = Metric(key="map", name="mAP", better="higher", digits=3)


def test_texts_have_name_unit_and_digits() -> None:
    assert (ERROR.axis, ERROR.head, ERROR.text(12.345)) == ("top-1 error (%)", "error %", "12.35 %")
    assert (SCORE.axis, SCORE.head, SCORE.text(0.5)) == ("mAP", "mAP", "0.500")


def test_a_value_that_is_not_defined() -> None:
    small = Metric(key="ap_small", name="AP of small objects", unit="%", better="higher", undefined=-1.0)
    assert (small.text(-1.0), small.number(-1.0), small.text(0.0)) == ("-", "-", "0.00 %")


@pytest.mark.parametrize(("metric", "best", "better"), [(ERROR, 1.0, True), (SCORE, 3.0, False)])
def test_direction(metric: Metric, best: float, better: bool) -> None:
    assert metric.best([2.0, 1.0, 3.0]) == best
    assert min([2.0, 1.0, 3.0], key=metric.as_cost) == best
    assert metric.is_better(1.0, 2.0) is better
    assert not metric.is_better(2.0, 2.0)
