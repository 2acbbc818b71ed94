"""What a shell offers after Tab."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from senet.cli import app
from senet.cli.common import completion
from senet.models import list_models
from senet.models.libraries import library_names
from senet.recipes import list_recipes


def offered(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash offers for the last word of a line."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_SENET_COMPLETE", "complete_bash")
    return CliRunner().invoke(app, [], prog_name="senet").stdout.split()


def test_names_are_those_of_the_tables() -> None:
    assert completion.complete_network("") == list_models()
    libraries = [name for library in ("timm/", "torchvision/") for name in completion.complete_network(library)]
    assert sorted(libraries) == sorted(library_names())
    assert completion.complete_recipe("") == list_recipes()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("senet stu", ["study"]),
        ("senet models se_resnet5", ["se_resnet50", "se_resnet56"]),
        ("senet sites senet154_", ["senet154_plain"]),
        ("senet insert torchvision/vgg11", ["torchvision/vgg11", "torchvision/vgg11_bn"]),
        ("senet train se_torchv", [f"se_{name}" for name in library_names() if name.startswith("torchvision/")]),
        (
            "senet bench timm/legacy_seresnet1",
            ["timm/legacy_seresnet101", "timm/legacy_seresnet152", "timm/legacy_seresnet18"],
        ),
        ("senet train se_resnet20 --recipe cifar-", ["cifar-110", "cifar-short"]),
        ("senet study gate --network wr", ["wrn_16_8"]),
        ("senet insert resnet50 --placement p", ["pre", "post"]),
        ("senet evaluate best", []),
        ("senet train faster", ["faster_rcnn:"]),
        ("senet train retinanet:se_resnet5", ["retinanet:se_resnet50", "retinanet:se_resnet56"]),
        ("senet evaluate x --task m", ["multilabel"]),
        ("senet study x --task d", ["detection"]),
        ("senet train x", []),
    ],
)
def test_words(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(line, monkeypatch) == expected


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("zsh", '_arguments \'*: :(("se_resnet50"\n"se_resnet56"))\'\n'),
        ("fish", "se_resnet50\nse_resnet56\n"),
    ],
)
def test_other_shells(shell: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "senet models se_resnet5")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_SENET_COMPLETE", f"complete_{shell}")
    assert CliRunner().invoke(app, [], prog_name="senet").stdout == expected


def test_bash_after_installation(tmp_path: Path) -> None:
    lines = [
        "senet --install-completion && source ~/.bashrc",
        "COMP_WORDS=(senet models timm/legacy_senet) COMP_CWORD=2",
        '$(complete -p senet | sed "s/.*-F \\(\\S*\\) .*/\\1/") senet',
        'echo "${COMPREPLY[@]}"',
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "timm/legacy_senet154", done
    assert "source" in (tmp_path / ".bashrc").read_text()


def test_nothing_large_is_imported() -> None:
    code = "import sys, senet.cli.common.completion as c; c.complete_network('timm/'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
