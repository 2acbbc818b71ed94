"""`benchmarks/finetune.py` on a CPU with tiny sizes: it trains as `senet.train` does, with and without graphs."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import senet
from senet.nn.fused import fused_choice
from tests.graph_tape import TapeGraphs
from tests.slow import fast_if

NETWORK = "resnet20"


@pytest.fixture(autouse=True)
def restored() -> Any:
    """The script chooses how SE is computed."""
    before = fused_choice()
    yield
    senet.set_fused(before)


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """Settings with 40 images of 10 classes in noise of their own color."""
    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / f"class{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(20 * (number % 10), 20 * (number % 10) + 70, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    torch.manual_seed(0)
    model = senet.create_model(NETWORK)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    spec = str(tmp_path / "images")
    made: Any = import_module("finetune_cases.session").Settings(
        data=spec, val=spec, weights={NETWORK: str(tmp_path / "weights.pth")}, batch=8, fused="off"
    )
    return made


def job(arm: str, seed: int = 3, **options: Any) -> Any:
    values: dict[str, Any] = {"network": NETWORK, "images": 16, "epochs": 2, "arm": arm, "seed": seed, "curve": True}
    return import_module("finetune_cases.arms").Job(**values | options)


def results(settings: Any, jobs: list[Any], backend: Any = None) -> list[dict[str, Any]]:
    """Results of runs of one lane, with the weights at the end of each."""
    senet.set_fused("off")
    session = import_module("finetune_cases.session").Session(settings)
    lane = import_module("finetune_cases.lanes").Lane(session, 20, None, backend)
    found = []
    for one in jobs:
        lane.start(one)
        while lane.advance():
            pass
        found.append(lane.result() | {"weights": {k: v.clone() for k, v in lane._slot.network.state_dict().items()}})
    return found


@pytest.mark.parametrize("arm", ["plain", "se x10"])
@fast_if(lambda arm: arm != "plain")
def test_it_trains_as_senet_train_does(settings: Any, tmp_path: Path, arm: str) -> None:
    (found,) = results(settings, [job(arm, images=40)])
    session = import_module("finetune_cases.session").Session(settings)
    recipe = import_module("finetune_cases.session").schedule(session.recipe, 2)
    factor = import_module("finetune_cases.arms").ARMS[arm].se_lr
    recipe = replace(recipe, lr=0.02, seed=3, se_lr_factor=factor, device="cpu", workers=0, network={})
    model = session.initial(NETWORK, import_module("finetune_cases.arms").ARMS[arm], 3)
    data = senet.open_data(settings.data)
    run = senet.train(model, (data, data), recipe, tmp_path / "run")
    trained = model.state_dict()
    assert trained.keys() == found["weights"].keys()
    for name, tensor in found["weights"].items():
        torch.testing.assert_close(tensor, trained[name], rtol=0, atol=0)
    assert found["errors"][-1] == pytest.approx(run.epochs[-1].top1_error)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["plain", "se x50, first"])
def test_graphs_give_the_bits_of_steps_without_them(settings: Any, arm: str) -> None:
    """Also in the second run of a network, which starts from other weights of SE and without momentum."""
    jobs = [job(arm, seed) for seed in (3, 4)]
    eager = [results(settings, [one])[0] for one in jobs]
    captured = results(settings, jobs, TapeGraphs())
    for one, other in zip(eager, captured, strict=True):
        assert other["without graph"] == ""
        assert one["errors"] == other["errors"]
        assert one["losses"] == other["losses"]
        for name, tensor in one["weights"].items():
            assert torch.equal(tensor, other["weights"][name]), name
    assert eager[0]["losses"] != eager[1]["losses"]


def test_a_step_that_is_not_captured_runs_without_a_graph(settings: Any) -> None:
    class Refuses(TapeGraphs):
        def capture(self, function: Any, share: Any) -> Any:
            raise RuntimeError("not permitted\nand more")

    from senet.utils.notices import listening

    notes: list[str] = []
    with listening(notes.append):
        (found,) = results(settings, [job("se x1")], Refuses())
    assert found["without graph"].endswith("RuntimeError: not permitted")
    assert found["errors"] == results(settings, [job("se x1")])[0]["errors"]
    assert any("without a CUDA graph" in note for note in notes)


def test_arms_differ_from_plain_only_in_what_they_name(settings: Any) -> None:
    """At the start SE at identity and controls have the plain network's error; the weights of groups follow rates."""
    runs = results(settings, [job(arm) for arm in ("plain", "se x50", "plain, norms x50")])
    assert runs[0]["errors"][0] == runs[1]["errors"][0] == runs[2]["errors"][0]
    session = import_module("finetune_cases.session").Session(settings)
    rates = {arm: session.rates(job(arm)) for arm in ("plain", "se x50", "plain, norms x50", "se x50, first")}
    assert rates["plain"].shape == (4, 5)
    assert torch.equal(rates["se x50"][:, :3], rates["plain"][:, :3])
    torch.testing.assert_close(rates["se x50"][:, 3], 50 * rates["plain"][:, 0])
    torch.testing.assert_close(rates["plain, norms x50"][:, 1], 50 * rates["plain"][:, 0])
    assert not rates["se x50, first"][:2, :3].any()
    assert rates["se x50, first"][2:].all()


def test_every_run_of_a_stage_stands_in_the_plan_once() -> None:
    arms = import_module("finetune_cases.arms")
    jobs = arms.plan(arms.STAGES)
    assert len({one.id for one in jobs}) == len(jobs)
    assert {one.arm for one in jobs} == set(arms.ARMS)
    main = arms.STAGES["main"]
    assert [one.arm for one in jobs[: len(main.arms)]] == list(main.arms)  # all arms of a seed before the next seed


def test_chosen_arms_run_in_their_order_in_each_stage_that_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    arms = import_module("finetune_cases.arms")
    jobs = arms.plan(["main", "epochs 1"], ["paper x50", "plain"], quick=True)
    assert [(one.arm, one.seed) for one in jobs] == [("paper x50", 10), ("plain", 10), ("paper x50", 11), ("plain", 11)]
    with pytest.raises(SystemExit):
        import_module("finetune").main(["--output", "unused", "--data", "x", "--val", "y", "--arms", "se x3"])
    assert "invalid --arms 'se x3': expected some of 'plain'" in capsys.readouterr().err


def test_the_script_resumes_and_writes_a_report(settings: Any, tmp_path: Path) -> None:
    script, output, page = import_module("finetune"), tmp_path / "found.jsonl", tmp_path / "page.md"
    arms = import_module("finetune_cases.arms")
    stage = replace(arms.STAGES["main"], arms=("plain", "se x50"), seeds=(10, 11, 12))
    tiny = [replace(one, images=16, epochs=1) for one in arms._jobs(stage, False)]
    page.write_text(f"before\n{import_module('finetune_cases.report').BEGIN}\n<!-- /measured -->\nafter\n")
    patch = pytest.MonkeyPatch()
    patch.setattr(script, "plan", lambda stages, arms, quick: tiny)
    patch.setattr(script, "_settings", lambda args, parser: settings)
    arguments = ["--output", str(output), "--weights", f"{NETWORK}=x", "--device", "cpu", "--write", str(page)]
    try:
        assert script.main(arguments) == 0
        first = output.read_text()
        lines = [json.loads(line) for line in first.splitlines()]
        assert [line["id"] for line in lines[1:]] == [one.id for one in tiny]
        output.write_text("\n".join(first.splitlines()[:4]) + "\n" + first.splitlines()[4][:50])  # cut off
        assert script.main(arguments) == 0
        again = [json.loads(line) for line in output.read_text().splitlines()]
        assert [(line["id"], line["errors"]) for line in again[1:]] == [
            (line["id"], line["errors"]) for line in lines[1:]
        ]
    finally:
        patch.undo()
    text = page.read_text()
    assert "| se x50 |" in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert (tmp_path / "page.png").is_file()
