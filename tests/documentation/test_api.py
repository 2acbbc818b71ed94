"""The API reference documents every public name once, with an example that runs.

Examples are in docstrings. They run as `doctest` runs them, with the imports and the images of docs/api/index.md.
"""

import doctest
import inspect
import pkgutil
import re
import runpy
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.nn.fused import fused_choice
from tests.data.coco_sets import write_coco
from tests.documentation.blocks import PAGES, ROOT
from tests.documentation.stand_ins import _lists
from tests.hub_server import Hub, running
from tests.images import write_classes

REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))
NAMES = [name for page in REFERENCE for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]
CALLABLE = [name for name in NAMES if name != "senet.__version__"]
# Examples that only the slow suite runs: files of engines, steps that are timed, and what other examples run, too.
SLOW = {
    *(f"senet.{name}" for name in ("Bench", "ExportError", "ExportReport", "ExportedNetwork", "FuseReport", "LRCurve")),
    *(f"senet.{name}" for name in ("bench", "export", "find_lr", "fusion.report.FuseRow", "load_exported", "runs.Run")),
    *(f"senet.benchmark.{name}" for name in ("EngineBench", "Measured", "Setting", "bench_engine")),
    "senet.benchmark.engines.EngineSide",
    "senet.deployment.export.Comparison",
    "senet.deployment.report.Row",
    "senet.gates.Ablation",
    "senet.gates.BlockDiagnosis",
    "senet.gates.FoldPlan",
    "senet.gates.HiddenUnits",
    "senet.gates.draw_figure7",
    "senet.runs.Epoch",
    "senet.tasks.detection.BoxPrediction",
    "senet.tasks.detection.DetectionEvaluation",
    "senet.tasks.multilabel.MultiLabelEvaluation",
}


def resolved(name: str) -> Any:
    return pkgutil.resolve_name(name)


def example(name: str) -> doctest.DocTest:
    """The examples in a docstring, with the names that docs/api/index.md imports."""
    text = inspect.getdoc(resolved(name)) or ""
    return doctest.DocTestParser().get_doctest(text, {"senet": senet, "torch": torch, "nn": nn}, name, name, 0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, quick_curves: None) -> Path:
    """The data that examples name, and two runs of one epoch."""
    folder = tmp_path_factory.mktemp("samples")
    for split in ("train", "val"):
        write_classes(folder / "photos" / split, {"cat": 4, "dog": 4})
    _lists(folder / "tags")
    write_coco(folder / "cells", 4, 2)
    recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
    for network, name in (("resnet20", "plain"), ("se_resnet20", "se")):
        senet.train(network, str(folder / "photos"), recipe, folder / "runs" / name)
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CALLABLE]
)
def test_examples_run(name: str, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in ("photos", "tags", "cells"):
        (tmp_path / data).symlink_to(samples / data)
    shutil.copytree(samples / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    test, report = example(name), list[str]()
    assert test.examples, f"{name} has no example"
    fused = fused_choice()
    with running(Hub("secret")) if name == "senet.push_to_hub" else nullcontext() as hub:
        if hub is not None:
            use_hub(hub, tmp_path, monkeypatch)
        failed = doctest.DocTestRunner().run(test, out=report.append).failed
    senet.set_fused(fused)
    assert not failed, "".join(report)


def use_hub(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub talk to a hub on the loopback interface, with its token."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    address = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_every_public_name_is_documented_once() -> None:
    objects = [id(resolved(name)) for name in NAMES]
    assert [name for name, one in zip(NAMES, objects, strict=True) if objects.count(one) > 1] == []
    assert [name for name in senet.__all__ if id(getattr(senet, name)) not in objects] == []
    index = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    assert [name for name in senet.__all__ if f".md#senet.{name})" not in index] == []


def test_names_of_the_guides_are_documented() -> None:
    """A class or function that a page calls by its full name is in the reference, unless it is senet's inside."""
    internal = ("docs/architecture.md", "docs/fused.md", "docs/training-internals.md", "CONTRIBUTING.md")
    documented = {id(resolved(name)) for name in NAMES}
    missing = set()
    for page in PAGES:
        if str(page.relative_to(ROOT)).startswith(internal):
            continue
        for name in re.findall(r"\bsenet(?:\.\w+)+(?=\()", page.read_text(encoding="utf-8")):
            try:
                found = resolved(name)
            except (ImportError, AttributeError):
                continue
            if (inspect.isclass(found) or inspect.isfunction(found)) and id(found) not in documented:
                missing.add(name)
    assert missing == set()


def test_entries_are_functions_and_classes_with_text() -> None:
    for name in CALLABLE:
        found = resolved(name)
        assert inspect.isclass(found) or inspect.isfunction(found), name
        text = inspect.getdoc(found) or ""
        assert text.partition("\n")[0].endswith((".", ":")), name
    assert set(CALLABLE) >= SLOW


@pytest.mark.slow
def test_entries_are_rendered_as_functions_and_classes() -> None:
    """mkdocstrings parses the source: a function must not be taken for the module of the same name."""
    griffe = pytest.importorskip("griffe")
    kind = runpy.run_path(str(ROOT / "docs" / "imported_objects.py"))["ImportedObjects"]
    extensions = griffe.load_extensions(kind(["senet.recipes.recipe.Recipe"]))
    package = griffe.load("senet", search_paths=[ROOT / "src"], extensions=extensions)
    for name in CALLABLE:
        found = package[name.removeprefix("senet.")]
        assert found.is_function or found.is_class, name
        assert ">>>" in found.docstring.value, name
