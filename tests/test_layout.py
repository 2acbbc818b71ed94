"""The layout of the source: what the docstring of a package says, and names of files that readers could confuse."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src"
FILES = sorted(ROOT.rglob("*.py"))
# Names that two files have which one file imports, and why they are the same.
SAME = {
    "errors": "those of senet, and those of several processes",
    "objective": "the interface, and its implementation by each task",
    "collector": "the interface, and its implementation by a task",
    "predict": "of classes, and of boxes",
}


def modules_of(text: str) -> set[Path]:
    """Files of senet that a file imports, without packages."""
    found = set()
    for module, names in re.findall(r"^\s*from (senet[\w.]*) import (\([^)]*\)|.*)$", text, re.M):
        path = ROOT / module.replace(".", "/")
        found |= {path / f"{name}.py" for name in re.findall(r"\w+", names)} | {path.with_suffix(".py")}
    return {path for path in found if path.is_file()}


def test_packages_describe_themselves() -> None:
    for path in FILES:
        if path.name != "__init__.py":
            continue
        text = path.read_text(encoding="utf-8")
        docstring = text.split('"""')[1]
        assert "__all__" in text, path
        assert 3 <= len(docstring.splitlines()) <= 5, path
        assert re.search(r"\b([Ii]mports?|imported|uses?)\b", docstring), path


def test_files_that_are_imported_side_by_side_have_names_of_their_own() -> None:
    found: dict[str, set[str]] = {}
    for path in FILES:
        modules = modules_of(path.read_text(encoding="utf-8"))
        names = [module.stem for module in modules]
        for name in {name for name in names if names.count(name) > 1}:
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    assert found.keys() == SAME.keys(), found
