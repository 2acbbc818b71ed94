"""Files for the host of the repository and for other tools: workflows, forms, citation, container image."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from senet import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def steps(workflow: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(read(f".github/workflows/{workflow}.yml"))["jobs"][job]["steps"]
    return found


@pytest.mark.parametrize(
    ("schema", "folder", "left_out"),
    [("workflows", "workflows", ()), ("issue-forms", "ISSUE_TEMPLATE", ("config.yml",))],
)
def test_files_of_github_have_its_schemas(schema: str, folder: str, left_out: tuple[str, ...]) -> None:
    files = [str(path) for path in (ROOT / ".github" / folder).glob("*.yml") if path.name not in left_out]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-{schema}", *files]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert files
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", [".ci/run", ".pre-commit-config.yaml", ".github/pull_request_template.md"])
def test_every_target_of_make_exists(path: str) -> None:
    named = re.findall(r"\bmake ([a-z-]+)", read(path))
    assert named
    assert set(named) <= TARGETS


def test_every_supported_python_runs_all_of_ci() -> None:
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["run"]
    assert [step["run"] for step in workflow["steps"] if "run" in step] == ["bash .ci/run"]
    versions = workflow["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    assert versions == [f"3.{one.removeprefix(prefix)}" for one in PROJECT["classifiers"] if one.startswith(prefix)]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_slow_tests_run_every_week() -> None:
    workflow = yaml.safe_load(read(".github/workflows/slow.yml"))
    (schedule,) = workflow[True]["schedule"]  # YAML 1.1 reads the key `on` as true
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert all(value.isdecimal() for value in (minute, hour, weekday))
    assert (day, month) == ("*", "*")
    assert [step["run"] for step in steps("slow", "slow") if "run" in step] == ["make test-slow"]


def test_a_release_has_a_tag_of_its_version_and_a_section_of_the_changelog(tmp_path: Path) -> None:
    script = next(step["run"] for step in steps("release", "build") if "the tag" in step.get("name", ""))

    def passes(tag: str) -> bool:
        command = ["bash", "-e", "-c", script]
        return subprocess.run(command, cwd=ROOT, env={"GITHUB_REF_NAME": tag}, check=False).returncode == 0

    assert passes(f"v{__version__}")
    assert not passes("v0.0.1")


def test_a_release_needs_no_password() -> None:
    text = read(".github/workflows/release.yml")
    assert yaml.safe_load(text)["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in text


def test_addresses_and_versions_agree() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["repository-code"] == REPOSITORY
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert tomllib.loads(read("zensical.toml"))["project"]["repo_url"] == REPOSITORY
    # Of other files that GitHub hosts at an address of this name, there are none.
    owner, name = REPOSITORY.split("/")[-2:]
    for path in ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "zensical.toml"):
        owners = re.findall(rf"github(?:usercontent)?\.com/([\w-]+)/{name}\b", read(path))
        assert set(owners) <= {owner}, path
    released = re.search(rf"^## \[{re.escape(__version__)}\] - (\S+)$", read("CHANGELOG.md"), re.M)
    assert released
    assert str(citation["date-released"]) == released[1]


def test_the_image_builds_the_package_from_what_it_copies(tmp_path: Path) -> None:
    """Without an engine: the files that the build gets are there and not ignored, and the package builds from them."""
    lines = read("Dockerfile").replace("\\\n", " ").splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY")]
    allowed = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    for *sources, destination in copies:
        assert set(sources) <= allowed
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, tmp_path / destination, ignore=ignored)
            else:
                shutil.copy(ROOT / source, tmp_path / destination)
    code = "from hatchling.build import build_wheel; print(build_wheel('.'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / built.stdout.splitlines()[-1]) as wheel:
        assert "senet/py.typed" in wheel.namelist()
    # Every stage that FROM names is a stage of the file, for each device of the comment.
    stages = {
        after for line in lines if line.startswith("FROM") for before, after in pairwise(line.split()) if before == "AS"
    }
    devices = {"cpu", *re.findall(r"DEVICE=(\w+)", read("Dockerfile"))}
    assert stages == {f"pytorch-{device}" for device in devices} == {"pytorch-cpu", "pytorch-cuda"}
