"""Tutorials run, and show the output of their code: `docs/run_tutorials.py` and the pages of docs/tutorials."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.documentation.blocks import ROOT, TUTORIALS, Block, blocks

EVERY = pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
PYTHON = [block for block in blocks("python") if block.in_tutorial]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tutorials", ROOT / "docs" / "run_tutorials.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.id)
def test_python_is_valid(block: Block) -> None:
    ast.parse(block.text)


@EVERY
def test_every_picture_is_shown(page: Path, runner: ModuleType) -> None:
    shown = {page.parent / path for path in runner.PICTURE.findall(page.read_text(encoding="utf-8"))}
    assert shown == set(page.with_suffix("").glob("*"))


@EVERY
def test_outputs_follow_code(page: Path, runner: ModuleType) -> None:
    """An output that follows no code would be stale for ever."""
    text = page.read_text(encoding="utf-8")
    outputs = text.count('```text title="Output"')
    assert outputs == sum('```text title="Output"' in found[0] for found in runner.BLOCK.finditer(text))
    assert outputs > 0


@pytest.mark.slow
def test_the_cheapest_page_is_in_step_with_the_code(runner: ModuleType) -> None:
    page = ROOT / "docs" / "tutorials" / "insert.md"
    text, pictures = runner.run_page(page)
    assert text == page.read_text(encoding="utf-8"), f"run: python docs/run_tutorials.py {page.relative_to(ROOT)}"
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())


@pytest.mark.slow
@EVERY
def test_tutorials_run(page: Path, runner: ModuleType) -> None:
    runner.run_page(page)


PAGE = """# Page

```python
x = 6
print(x * 7)
```

```text title="Output"
stale
```

```sh
echo "1  " > one.txt
cat one.txt; ls "$PWD/examples/README.md"; echo no result >&2
```

```python
import os
from pathlib import Path

print(Path("one.txt").read_text() * (x - 4), end="")
Path("drawn.png").write_text("a picture")
Path(os.environ["SENET_DARK_FIGURES"], "drawn.png").write_text("dark")
```

```python
y = x
```

```text
not run
```

![A picture](page/drawn.png#gh-light-mode-only)
![A picture](page/drawn-dark.png#gh-dark-mode-only)
"""


def test_outputs_and_pictures_are_written(tmp_path: Path, runner: ModuleType) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "stale.png").touch()
    before = Path.cwd()
    runner.write_page(page)
    text = page.read_text()
    assert Path.cwd() == before
    outputs = [found[0].partition("Output")[2] for found in runner.BLOCK.finditer(text)]
    assert outputs == ['"\n42\n```\n', '"\n1\nexamples/README.md\n```\n', '"\n1\n1\n```\n', ""]
    pictures = {path.name: path.read_text() for path in (tmp_path / "page").iterdir()}
    assert pictures == {"drawn.png": "a picture", "drawn-dark.png": "dark"}
    runner.write_page(page)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("```python\nprint('said')\n1 / 0\n```\n", r"(?s)said\n.*ZeroDivisionError"),
        ("```sh\necho said\necho why >&2\nfalse | cat\n```\n", "said\nwhy\nexit status 1"),
        ("![A picture](page/none.png)\n", "page/none.png: 0 files none.png were written"),
        ("![A picture](page/one-dark.png#gh-dark-mode-only)\n", "one-dark.png: 0 files one.png were written"),
    ],
    ids=["python", "sh", "picture", "dark"],
)
def test_a_page_that_fails_is_left_unchanged(text: str, match: str, tmp_path: Path, runner: ModuleType) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n" + text)
    with pytest.raises(runner.BlockError, match=match):
        runner.write_page(page)
    assert page.read_text() == "```python\nprint(1)\n```\n\n" + text
