import time

import numpy as np
import pytest
import torch
from torch import nn

import senet
from senet.gates.recording.merging import merge_gates
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.recorder import record_gates
from senet.graph.se_modules import find_se
from senet.utils.errors import GatesError
from tests.forked import start
from tests.gates.recorded import check, close, flat, same_bits, seen_by_hooks, some_batches
from tests.helpers import randomise
from tests.se_by_hand import FORMS, Net
from tests.slow import fast_if

NAMES = ["ant", "bee", "cat"]


def _ours(**options):
    return senet.create_model("se_resnet20", num_classes=3, **options)


def _inserted(placement="standard", **options):
    return senet.insert(senet.create_model("resnet20", num_classes=3), placement=placement, reduction=4, **options)


def _timm(name, **options):
    import timm

    return timm.create_model(name, num_classes=3, **options)


def _torchvision(name):
    import torchvision

    return getattr(torchvision.models, name)(num_classes=3)


NETWORKS = {
    "ours": _ours,
    "tanh": lambda: _inserted(gate="tanh", init="paper"),
    "relu": lambda: _inserted("pre", gate="relu", init="paper"),
    "max": lambda: _inserted("post", squeeze="max"),
    "none": lambda: _inserted("conv3x3", squeeze="none"),
    "gain": lambda: _inserted("identity"),
    "windows": lambda: _inserted("identity", window=(16, 24)),
    "timm": lambda: _timm("seresnet18"),
    "legacy": lambda: _timm("legacy_seresnet18"),
    "efficientnet": lambda: _timm("test_efficientnet"),
    "one layer": lambda: _timm("ese_vovnet19b_slim_dw"),
    "torchvision": lambda: _torchvision("mobilenet_v3_small"),
}


def _randomised(model):
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model


def _hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return {name: [list(getattr(m, kind)) for kind in kinds] for name, m in model.named_modules()}


@pytest.mark.parametrize("name", NETWORKS)
@fast_if(lambda name: name not in ("tanh", "max", "legacy", "efficientnet"))
def test_figures_are_those_of_all_gates_in_memory(name):
    model, pairs = _randomised(NETWORKS[name]()), some_batches()
    hooks = _hooks(model)
    gates = record_gates(model, pairs, classes=NAMES, correlation=True, sample=7)
    assert _hooks(model) == hooks
    assert model.training
    expected = seen_by_hooks(model, pairs)
    labels = torch.cat([labels for _, labels in pairs]).numpy()
    units = {unit.name: unit for unit in find_se(model)}
    assert {block.name for block in gates.blocks} == set(expected)
    assert gates.images == 12
    for block in gates.blocks:
        values = expected[block.name]
        check(block.gates, values["gates"], labels)
        check(block.squeezes, values["squeezes"], labels)
        # Rounded to float32, where means over positions may differ in the last of 64 bits before.
        for rows, key in ((block.sample_gates, "gates"), (block.sample_squeezes, "squeezes")):
            assert rows.dtype == np.float32
            close(rows, values[key].mean(1)[gates.sample.indices], 6e-8)
        unit = units[block.name]
        assert (block.hidden is None) == (unit.reduce is None)
        if block.hidden is not None:
            check(block.hidden.outputs, values["outputs"], np.zeros_like(labels))
            inputs = values["inputs"].reshape(-1, values["inputs"].shape[-1])
            assert block.hidden.positive.tolist() == (inputs > 0).sum(0).tolist()
            assert block.hidden.calls == len(inputs)
            weight = unit.expand.weight.detach().double().flatten(1).numpy()
            assert np.allclose(block.hidden.weights, np.sqrt((weight**2).sum(0)), rtol=1e-12)


def test_labels_are_the_papers():
    def labels(model, side=32):
        return [b.label for b in record_gates(model, some_batches((2,), side=side), classes=NAMES).blocks]

    ours = [f"SE_{stage}_{place}" for stage in (2, 3, 4) for place in (1, 2, 3)]
    assert labels(_ours()) == ours
    assert labels(_inserted("pre")) == ours
    deep = [f"SE_{stage}_{place}" for stage, units in ((2, 2), (3, 2), (4, 2), (5, 2)) for place in range(1, units + 1)]
    assert labels(_timm("seresnet18"), 64) == deep
    assert labels(_torchvision("mobilenet_v3_small"), 64)[:3] == ["SE_2_1", "SE_4_1", "SE_4_2"]
    gates = record_gates(_ours(), some_batches((2,)), classes=NAMES)
    assert [block.depth for block in gates.blocks][::4] == [0, 0.5, 1]
    assert [block.stage for block in gates.blocks] == [2] * 3 + [3] * 3 + [4] * 3


class _Several(nn.Module):
    """One block that runs twice, one that never does, both with the same activation."""

    def __init__(self):
        super().__init__()
        self.se, self.other, self.never = (senet.SqueezeExcitation(4, 2) for _ in range(3))
        self.other.activation = self.se.activation
        self.other.gate = self.se.gate

    def forward(self, x):
        return self.other(self.se(self.se(x) + 1))


def test_a_block_that_runs_twice_has_two_positions_and_one_that_does_not_is_left_out():
    model, pairs = _randomised(_Several()).double(), some_batches(channels=4, dtype=torch.float64)
    gates = record_gates(model, pairs, classes=NAMES)
    assert [block.name for block in gates.blocks] == ["se", "other"]
    twice, other = [], []
    with torch.no_grad():
        for x, _ in pairs:
            first, again = model.se.excite(x.mean((2, 3))), model.se(x) + 1
            second = model.se.excite(again.mean((2, 3)))
            twice.append(torch.stack((first, second), 1))
            other.append(model.other.excite(model.se(again).mean((2, 3)))[:, None])
    labels = torch.cat([labels for _, labels in pairs]).numpy()
    check(gates.blocks[0].gates, torch.cat(twice).numpy(), labels)
    check(gates.blocks[1].gates, torch.cat(other).numpy(), labels)
    assert gates.blocks[0].hidden.calls == 24
    assert gates.blocks[1].hidden.calls == 12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model, pairs = _inserted().to(dtype), some_batches((4, 3))
    gates = record_gates(model, pairs, classes=NAMES)
    expected = seen_by_hooks(model, [(images.to(dtype), labels) for images, labels in pairs])
    labels = torch.cat([labels for _, labels in pairs]).numpy()
    for block in gates.blocks:
        check(block.gates, expected[block.name]["gates"], labels)


def test_under_autocast_and_with_modes_of_its_own():
    model, pairs = _ours(), some_batches((4,))
    model.eval()
    model.layer1.train()
    modes = [module.training for module in model.modules()]
    with torch.autocast("cpu", torch.bfloat16):
        gates = record_gates(model, pairs, classes=NAMES)
    assert [module.training for module in model.modules()] == modes
    values = gates.blocks[0].sample_gates
    assert np.array_equal(values, torch.from_numpy(values).bfloat16().float().numpy())


def test_the_sample_depends_on_places_and_seed_alone():
    model = _ours()
    images, labels = (torch.cat(tensors) for tensors in zip(*some_batches((40,), side=8), strict=True))

    def sample(size, seed=0):
        pairs = list(zip(images.split(size), labels.split(size), strict=True))
        return record_gates(model, pairs, classes=NAMES, sample=9, thumbnail=6, seed=seed).sample

    one, other = sample(40), sample(7)
    assert flat(one) == flat(other)
    assert one.indices.tolist() == sorted(one.indices.tolist())
    assert one.labels.tolist() == labels[one.indices].tolist()
    assert one.thumbnails.shape == (9, 6, 6, 3)
    assert sample(40, seed=1).indices.tolist() != one.indices.tolist()
    assert sample(40, seed=-1).indices.tolist() != one.indices.tolist()


def test_each_image_is_as_likely_in_the_sample():
    from senet.gates.recording.sampling import sampling_keys

    counts = np.zeros(50)
    for seed in range(2000):
        counts[np.argsort(sampling_keys(np.arange(50), seed))[:10]] += 1
    # 2000 draws of probability 0.2: a deviation of 5 sigma.
    assert np.abs(counts - 400).max() < 5 * (2000 * 0.2 * 0.8) ** 0.5
    assert len(np.unique(sampling_keys(np.arange(100_000), 3))) == 100_000


def test_parts_merge_to_the_whole_in_any_order(tmp_path):
    model, pairs = _randomised(_ours()), some_batches((4, 4, 4, 4, 3))
    whole = record_gates(model, pairs, classes=NAMES, correlation=True, sample=6)
    parts = [record_gates(model, pairs, classes=NAMES, correlation=True, sample=6, part=(i, 3)) for i in range(3)]
    assert not any(part.complete for part in parts)
    merged = merge_gates([parts[2], parts[0], parts[1]])
    assert merged.complete
    assert not merge_gates(parts[:2]).complete
    assert same_bits(merged, merge_gates([merge_gates(parts[:2]), parts[2]]))
    expected, labels = seen_by_hooks(model, pairs), torch.cat([labels for _, labels in pairs]).numpy()
    for block in merged.blocks:
        check(block.gates, expected[block.name]["gates"], labels)
        check(block.squeezes, expected[block.name]["squeezes"], labels)
        check(block.hidden.outputs, expected[block.name]["outputs"], np.zeros_like(labels))
    assert flat(merged.sample) == flat(whole.sample)
    assert [flat(b.sample_gates) for b in merged.blocks] == [flat(b.sample_gates) for b in whole.blocks]


def child(path, part, stop):
    """Record a part of the batches, as far as they come."""
    record_gates(ours(), Slow(stop), classes=NAMES, output=path, every=0, part=part, sample=5, correlation=True)


def ours():
    """The same network in each process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return senet.create_model("se_resnet20", num_classes=3)


class Slow:
    """Batches that never come any more from one on."""

    def __init__(self, stop=-1):
        self.stop, self.pairs = stop, some_batches((4,) * 6, side=16)

    def __len__(self):
        return len(self.pairs)

    def __iter__(self):
        for number, pair in enumerate(self.pairs):
            if number == self.stop:
                time.sleep(600)
            yield pair


@pytest.mark.slow
def test_two_processes_merge_to_the_same_numbers(tmp_path):
    running = [start(child, tmp_path / f"{i}.safetensors", (i, 2), -1) for i in range(2)]
    pairs = Slow().pairs
    expected, labels = seen_by_hooks(ours(), pairs), torch.cat([labels for _, labels in pairs]).numpy()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    merged = merge_gates([load_gates(tmp_path / f"{i}.safetensors") for i in range(2)])
    assert merged.complete
    for block in merged.blocks:
        check(block.gates, expected[block.name]["gates"], labels)


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path):
    path = tmp_path / "gates.safetensors"
    process = start(child, path, (0, 1), 3)
    end = time.monotonic() + 120
    while not path.exists() or load_gates(path).state["batches"] < 3:
        assert time.monotonic() < end
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    before = load_gates(path)
    assert not before.complete
    assert before.images == 12
    options = {"classes": NAMES, "sample": 5, "correlation": True}
    resumed = record_gates(ours(), Slow(), output=path, resume=True, **options)
    whole = record_gates(ours(), Slow(), **options)
    assert resumed.images == 24
    assert same_bits(resumed, whole)
    assert same_bits(load_gates(path), whole)


def test_resume_refuses_what_it_was_not_begun_with(tmp_path):
    path, model, pairs = tmp_path / "gates.safetensors", _ours(), some_batches((3, 3))
    options = {"classes": NAMES, "output": path, "resume": True, "sample": 2}
    done = record_gates(model, pairs, **options)
    assert same_bits(record_gates(model, pairs, **options), done)
    for match, change in (
        ("sample", {"sample": 3}),
        ("seed", {"seed": 4}),
        ("thumbnail", {"thumbnail": 9}),
        ("correlation", {"correlation": True}),
        ("part", {"part": (0, 2)}),
        ("classes", {"classes": ["a", "b", "c"]}),
    ):
        with pytest.raises(GatesError, match=f"cannot resume.*{match}"):
            record_gates(model, pairs, **(options | change))
    with pytest.raises(GatesError, match="batches"):
        record_gates(model, pairs[:1], **options)
    with torch.no_grad():
        model.fc.bias += 1
    with pytest.raises(GatesError, match="weights"):
        record_gates(model, pairs, **options)
    with pytest.raises(ValueError, match="output="):
        record_gates(model, pairs, classes=NAMES, resume=True)


class _Stops:
    """Batches that end with an error."""

    def __init__(self, pairs, after):
        self.pairs, self.after = pairs, after

    def __len__(self):
        return len(self.pairs)

    def __iter__(self):
        for number, pair in enumerate(self.pairs):
            if number == self.after:
                raise RuntimeError("the disk is gone")
            yield pair


def test_other_labels_are_noticed_on_resuming(tmp_path):
    path, model, pairs = tmp_path / "gates.safetensors", _ours(), some_batches((3, 3, 3, 3))
    hooks = _hooks(model)
    options = {"classes": NAMES, "output": path, "resume": True, "every": 0}
    with pytest.raises(RuntimeError, match="disk"):
        record_gates(model, _Stops(pairs, 3), **options)
    assert _hooks(model) == hooks
    assert model.training
    assert load_gates(path).state["batches"] == 3
    changed = [(pairs[0][0], (pairs[0][1] + 1) % 3), *pairs[1:]]
    with pytest.raises(GatesError, match="labels of the first 3 batches"):
        record_gates(model, _Stops(changed, 9), **options)
    resumed = record_gates(model, _Stops(pairs, 9), **options)
    assert [flat(b) for b in resumed.blocks] == [flat(b) for b in record_gates(model, pairs, classes=NAMES).blocks]


def _nan(model):
    with torch.no_grad():
        model.layer2[1].bn2.se.fc2.bias[3] = float("nan")
    return model


def test_values_that_are_not_finite_are_named():
    pairs = some_batches((3, 3))
    with pytest.raises(GatesError, match=r"gate of the block 'layer2.1.bn2.se' is nan in channel 3 for image 0"):
        record_gates(_nan(_ours()), pairs, classes=NAMES)
    pairs[1][0][2, 0, 5, 5] = float("inf")
    model = _ours()
    with pytest.raises(GatesError, match=r"squeeze of the block 'layer1.0.bn2.se' is .* for image 5"):
        record_gates(model, pairs, classes=NAMES)
    assert not model.layer1[0].bn2.se.gate._forward_hooks


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (GatesError, "has no SE.*senet.insert", {"model": nn.Conv2d(3, 4, 1)}),
        (TypeError, "expected a torch.nn.Module", {"model": "se_resnet20"}),
        (GatesError, "no images", {"loader": []}),
        (GatesError, "no images", {"loader": iter([])}),
        (GatesError, "has the label 2.*2 classes", {"classes": ["ant", "bee"]}),
        (TypeError, "list of names", {"classes": "ant"}),
        (ValueError, r"part must be \(i, n\).*\(2, 2\)", {"part": (2, 2)}),
        (ValueError, r"part must be", {"part": (-1, 2)}),
        (GatesError, "none of the 3 batches", {"part": (3, 4)}),
        (ValueError, "sample must be.*-1", {"sample": -1}),
        (ValueError, "thumbnail must be 1 pixel or more.*0", {"thumbnail": 0}),
        (ValueError, "every must be.*-1", {"every": -1}),
        (GatesError, "/nowhere.*existing, writable folder", {"output": "/nowhere/gates.safetensors"}),
        (GatesError, "it is a folder", {"output": "/tmp"}),
        (TypeError, "batches of two tensors", {"loader": [torch.zeros(2, 3, 8, 8)]}),
        (ValueError, "integer labels", {"loader": [(torch.zeros(2, 3, 8, 8), torch.zeros(2))]}),
        (ValueError, "integer labels", {"loader": [(torch.zeros(2, 3, 8, 8), torch.zeros(3, dtype=torch.long))]}),
        (TypeError, "got Tensor", {"loader": torch.zeros(2, 3, 8, 8)}),
        (TypeError, "got int", {"loader": 3}),
    ],
)
def test_errors_say_what_and_how(error, match, change):
    options = {"model": _ours(), "loader": some_batches(), "classes": NAMES} | change
    with pytest.raises(error, match=match):
        record_gates(options.pop("model"), options.pop("loader"), **options)


def test_merging_refuses_what_does_not_belong_together():
    model, pairs = _ours(), some_batches((3, 3))
    one, two = (record_gates(model, pairs, classes=NAMES, part=(i, 2)) for i in range(2))
    with pytest.raises(GatesError, match="no recordings"):
        merge_gates([])
    with pytest.raises(GatesError, match="part 0 of 2 is duplicate"):
        merge_gates([one, one])
    for match, options in (("sample", {"sample": 3}), ("classes", {"classes": ["a", "b", "c"]})):
        other = record_gates(model, pairs, part=(1, 2), **({"classes": NAMES} | options))
        with pytest.raises(GatesError, match=f"differ in.*{match}"):
            merge_gates([one, other])
    with pytest.raises(GatesError, match=r"number of parts \(2 and 3\)|number of parts"):
        merge_gates([two, record_gates(model, [*pairs], classes=NAMES, part=(0, 1))])


@pytest.mark.parametrize("name", FORMS)
def test_se_written_by_hand_is_recorded(name):
    model = randomise(Net(FORMS[name][0]())).eval()
    batches = [(torch.randn(4, 3, 16, 16), torch.arange(4) % 3) for _ in range(3)]
    gates = record_gates(model, batches, classes=NAMES)
    (block,) = gates.blocks
    with torch.no_grad():
        expected = torch.cat([model.block.gates(model.stem(images)) for images, _ in batches]).double()
    assert block.name == FORMS[name][2]
    np.testing.assert_allclose(block.gates.mean, expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(block.gates.variance, expected.var(0, correction=0), rtol=1e-4, atol=1e-12)
    assert block.hidden is not None
    assert block.hidden.calls == 12
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_network_without_se_still_has_no_gates():
    model = Net(nn.Conv2d(16, 16, 3)).eval()
    with pytest.raises(GatesError, match="Net has no SE"):
        record_gates(model, [(torch.randn(4, 3, 16, 16), torch.arange(4) % 3)], classes=NAMES)
