import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.cli.common.user_code import call_function, names_function
from senet.utils.errors import FileError
from tests.cli.helpers import answer, invoke, refuses

CODE = """
import dataclasses
from torch import nn
from blocks import width

print("on import")

@dataclasses.dataclass
class Spec:
    width: int = width

class Net(nn.Sequential):
    def __init__(self, spec=Spec()):
        super().__init__(nn.Conv2d(3, spec.width, 3), nn.ReLU())

def make():
    print("in the call")
    return Net()

def with_options(depth, width=8, *rest, **options):
    return Net()

def number():
    return 3

def fails():
    raise KeyError("x")

def leaves():
    raise SystemExit("bye")

def fills_memory():
    raise MemoryError

network = Net()
count = 3

if __name__ == "__main__":
    raise RuntimeError("as a program")
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's file, and a module next to it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "blocks.py").write_text("width = 8\n")
    (tmp_path / "net.py").write_text(CODE)
    monkeypatch.delitem(sys.modules, "blocks", raising=False)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "net.py")


@pytest.mark.parametrize("text", ["net.py:make", "net.py", "a/b.py:make", "net.py:", "a:b.py:make", "/a b/c.py:d"])
def test_names_functions(text: str) -> None:
    assert names_function(text)


@pytest.mark.parametrize("text", ["resnet20", "timm/resnet50", "hf-hub:a/b", "net.pyc:a", "net.pth", "x.py.pth", ".py"])
def test_names_no_functions(text: str) -> None:
    assert not names_function(text)


@pytest.mark.parametrize("name", ["make", "Net", "network"])
def test_a_function_a_class_or_a_network(file: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = call_function(f"{file}:{name}")
    assert type(model).__name__ == "Net"
    assert model[0].out_channels == 8
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("on import\n")
    assert sys.path[0] != str(Path(file).parent)
    assert sys.path[-1] == str(Path(file).parent)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":mak", "unknown function of .*net.py 'mak'; did you mean 'make'?.*with_options"),
        ("", "net.py' names no function: .* such as .*net.py:fills_memory"),
        (":with_options", r"with_options needs arguments \(depth\): name a function without any"),
        (":number", "number returned 3: return the network"),
        (":count", "count is 3: name a function that returns"),
        (":fails", "fails raised KeyError in line 27: 'x'; --debug shows"),
        (":leaves", "leaves raised SystemExit in line 30: bye"),
    ],
)
def test_refuses(file: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call_function(f"{file}{name}")


def test_refuses_files(file: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file at none.py"):
        call_function("none.py:make")
    (tmp_path / "bad.py").write_text("def make(:\n")
    with pytest.raises(FileError, match=r"bad.py is not valid Python: .*line 1"):
        call_function("bad.py:make")
    (tmp_path / "late.py").write_text("import nothing_of_this_name\n\ndef make(): ...\n")
    with pytest.raises(ValueError, match=r"late.py raised ModuleNotFoundError in line 1: No module named 'nothing_of"):
        call_function("late.py:make")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(FileError, match="folder.py: it is a folder"):
        call_function("folder.py:make")
    with pytest.raises(MemoryError):
        call_function(f"{file}:fills_memory")


class Pooled(nn.Sequential):
    """A classifier of 32x32 images."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        self.num_classes = 2
        self.pretrained_cfg = senet.create_model("resnet20", num_classes=2).pretrained_cfg


def test_commands_take_a_function(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from tests.cli.common.test_user_code import Pooled\n")
    given = ["--data", data, "--crop", "32", "--resize", "32", "--workers", "0"]
    assert answer("evaluate", "net.py:Pooled", *given)["images"] == 4
    model = Pooled()
    torch.save(model.state_dict(), "weights.pth")
    assert answer("evaluate", "weights.pth", "--network", "net.py:Pooled", *given)["images"] == 4
    torch.save(nn.Linear(3, 4).state_dict(), "other.pth")
    refuses("other.pth does not fit", "evaluate", "other.pth", "--network", "net.py:Pooled", *given)
    refuses("net.py:Pooled is a function.*leave out --network", "evaluate", "net.py:Pooled", "--network", "a", *given)
    measured: list[Any] = []
    monkeypatch.setattr(senet, "bench", lambda *networks, **options: measured.extend(networks))
    invoke("bench", "net.py:Pooled", "--against", "net.py:Pooled")
    assert [type(network).__name__ for network in measured] == ["Pooled", "Pooled"]
    refuses(
        "--set requires a named network; set the options in net.py:Pooled",
        *("bench", "net.py:Pooled"),
        "--set",
        "network.num_classes=3",
    )
