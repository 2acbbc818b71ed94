"""What the package declares: its dependencies, and the files of its source distribution and of its wheel."""

import ast
import functools
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from senet import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: needed for name, needed in PROJECT["optional-dependencies"].items() if name not in ("all", "dev")}

# PyTorch for CUDA requires it, in the version that it needs; senet uses it only where it is there, and imports it late.
BROUGHT_BY_TORCH = ("triton",)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in requirements}


@functools.cache
def imports() -> list[tuple[str, Path, list[ast.AST]]]:
    """Packages of others that the source imports, with the nodes around each import."""

    def walk(node: ast.AST, around: list[ast.AST], path: Path) -> Iterator[tuple[str, Path, list[ast.AST]]]:
        if isinstance(node, ast.Import):
            yield from ((name.name, path, around) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), path, around
        for child in ast.iter_child_nodes(node):
            yield from walk(child, [*around, node], path)

    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name, file, around in walk(ast.parse(path.read_text(encoding="utf-8")), [], path):
            name = name.partition(".")[0]
            if name not in ("senet", *BROUGHT_BY_TORCH) and name not in sys.stdlib_module_names:
                found.append((name, file, around))
    return found


@functools.cache
def installed() -> dict[str, list[str]]:
    return dict(packages_distributions())


def distributions(package: str) -> set[str]:
    """Distributions that have a package; google is shared by many."""
    if package == "google":
        return {"protobuf"}
    found = installed().get(package, [package])
    return {name.lower().replace("_", "-") for name in found}


def test_every_import_is_a_declared_dependency() -> None:
    core, extra = names(PROJECT["dependencies"]), names([need for needed in EXTRAS.values() for need in needed])
    missing = {
        f"{package} in {path.name}" for package, path, _ in imports() if not distributions(package) & (core | extra)
    }
    assert not missing
    # What only an extra has is imported late: `import senet` works without it.
    early = {
        f"{package} in {path.name}"
        for package, path, around in imports()
        if not distributions(package) & core and not any(isinstance(node, ast.FunctionDef | ast.If) for node in around)
    }
    assert not early


def test_where_an_optional_package_is_missing_the_error_names_the_command() -> None:
    core = names(PROJECT["dependencies"])
    hinted: dict[str, set[str]] = {}
    for package, path, around in imports():
        if distributions(package) & core:
            continue
        guards = [item.context_expr for node in around if isinstance(node, ast.With) for item in node.items]
        extras = re.findall(r"optional_import\('(\w+)', ", " ".join(map(ast.unparse, guards)))
        for extra in extras:
            assert distributions(package) & names(EXTRAS[extra]), f"{path.name}: {package} is not in {extra}"
        hinted.setdefault(package, set()).update(extras)
    assert all(hinted.values()), hinted


def test_missing_packages_are_explained_in_one_place() -> None:
    caught = {
        path.name
        for path in (ROOT / "src").rglob("*.py")
        if re.search(
            r"except \(?[\w, ]*(ImportError|ModuleNotFoundError)[\w, ]*\)? as", path.read_text(encoding="utf-8")
        )
    }
    assert caught == {"extras.py"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the source distribution, as hatchling builds it."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from hatchling.build import build_sdist; print(build_sdist({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    with tarfile.open(folder / built.stdout.splitlines()[-1]) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_sdist_has_every_file_that_the_readme_names(sdist: set[str]) -> None:
    wanted = {"Makefile", "zensical.toml", ".ci/run"}  # what `make docs` and CONTRIBUTING.md need
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        named = re.findall(r"(?:\]\(|python |`|[ ])((?:[\w.-]+/)*[\w.-]+\.(?:py|md|png|toml|yml))\b", text)
        wanted |= {name for name in named if (ROOT / name).is_file()}
        wanted |= {name.rstrip("/") for name in re.findall(r"\]\(([^)#:\s]+)\)", text)}
    folders = {name for name in wanted if (ROOT / name).is_dir()}
    assert not {name for name in wanted - folders if name not in sdist}
    assert all(any(name.startswith(f"{folder}/") for name in sdist) for folder in folders)
    assert {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")} <= sdist
    assert not any("__pycache__" in name for name in sdist)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, as hatchling builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return zipfile.ZipFile(folder / built.stdout.splitlines()[-1])


def test_the_wheel_has_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {name for name in names if name.startswith("senet/")}
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "senet").rglob("*") if path.is_file()}
    assert package == {name for name in source if "__pycache__" not in name}
    assert "senet/py.typed" in package
    metadata = {name.partition("/")[2] for name in names - package}
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_the_description_of_the_package_has_addresses_in_place_of_paths(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(f"senet-{__version__}.dist-info/METADATA").decode()
    metadata = message_from_string(text)
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r'(?:\]\(|src="|srcset="|href=")([^)"\s]+)', str(metadata.get_payload()))
    assert not [target for target in targets if not re.match(r"https?://|#", target)]
    # An address of this repository is of this version's tag, and its path exists.
    repository = PROJECT["urls"]["Repository"]
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    paths = [
        target.removeprefix(prefix).partition("#")[0]
        for target in targets
        for prefix in (f"{repository}/blob/v{__version__}/", f"{raw}/v{__version__}/")
        if target.startswith(prefix)
    ]
    relative = re.findall(r"\]\((?!https?:|#)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(paths) >= len(relative) > 0
    assert all((ROOT / path).exists() for path in paths)
    assert any(target.startswith(raw) and target.endswith(".png") for target in targets)


def test_the_installation_page_lists_every_extra_with_its_packages() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    rows = {
        name: set(packages.split(", ")) for name, packages in re.findall(r"^\| `(\w+)` \| ([\w, -]+) \|", page, re.M)
    }
    assert rows == {extra: names(needed) for extra, needed in EXTRAS.items()}
