"""The errors of a data loader whose worker process ended."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from senet.utils.worker_errors import is_worker_exit


class Ending(Dataset[int]):
    """Ends the process that reads from it."""

    def __init__(self, act: str) -> None:
        self.act = act

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if self.act == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.act == "exits":
            os._exit(3)
        raise RuntimeError("no such image")


@pytest.mark.parametrize(("act", "expected"), [("killed", True), ("exits", True), ("raises", False)])
def test_a_worker_that_ends_and_one_that_raises(act: str, expected: bool) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Ending(act), num_workers=1))
    assert is_worker_exit(caught.value) == expected


def test_errors_of_another_class() -> None:
    assert not is_worker_exit(ValueError("DataLoader worker"))
