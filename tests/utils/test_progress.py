"""Progress that shows nothing."""

from senet.utils.progress import no_progress


def test_steps_are_the_same_where_no_progress_is_shown() -> None:
    steps = [3, 1, 2]
    assert no_progress(steps, 3, "decode") is steps
