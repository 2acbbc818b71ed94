import io
import json
import zipfile

import numpy as np
import pytest
import torch

import senet
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.recorder import record_gates
from senet.utils.errors import GatesError
from tests.gates.recorded import flat, some_batches

NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def recorded():
    torch.manual_seed(0)
    model = senet.insert(senet.create_model("resnet20", num_classes=3), "conv3x3", squeeze="none", reduction=4)
    return record_gates(model, some_batches((3, 2), side=8), classes=NAMES, sample=2, thumbnail=4, correlation=True)


def test_a_file_gives_back_everything(recorded, tmp_path):
    path = tmp_path / "gates.npz"
    recorded.save(path)
    assert flat(load_gates(path)) == flat(recorded)
    assert [p.name for p in tmp_path.iterdir()] == ["gates.npz"]


def test_numpy_reads_it_by_the_keys_that_are_documented(recorded, tmp_path):
    path = tmp_path / "gates.npz"
    recorded.save(path)
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(file["about"].tobytes())["format"] == 1
        assert np.array_equal(file["1/gates/means"], recorded.blocks[1].gates.means)
        assert np.array_equal(file["0/hidden/outputs/space"], recorded.blocks[0].hidden.outputs.space)
        assert np.array_equal(file["sample/thumbnails"], recorded.sample.thumbnails)


def test_a_network_of_one_layer_and_no_thumbnails(tmp_path):
    import timm

    model = timm.create_model("ese_vovnet19b_slim_dw", num_classes=3)
    gates = record_gates(model, some_batches((2,)), classes=NAMES, sample=0, thumbnail=None)
    gates.save(tmp_path / "g.npz")
    again = load_gates(tmp_path / "g.npz")
    assert flat(again) == flat(gates)
    assert again.blocks[0].hidden is None
    assert again.sample.thumbnails is None
    assert len(again.sample.indices) == 0


def _edited(path, target, change):
    """The file with its arrays changed: `change` takes and may edit them by key."""
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes())
    change(arrays, about)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(target, **arrays)


CHANGES = {
    "newer": (lambda arrays, about: about.update(format=9), "format 9.*install a newer senet"),
    "format": (lambda arrays, about: about.update(format="1"), "no recording"),
    "classes": (lambda arrays, about: about["classes"].append("dog"), "gates/images"),
    "no classes": (lambda arrays, about: about.update(classes=[]), "list of classes"),
    "blocks": (lambda arrays, about: about.update(blocks=[]), "list of blocks"),
    "one more block": (lambda arrays, about: about["blocks"].append(about["blocks"][0]), "9/gates/images"),
    "name": (lambda arrays, about: about["blocks"][0].update(name=3), "name"),
    "kind of block": (lambda arrays, about: about.update(blocks=[3]), "record the gates anew"),
    "depth": (lambda arrays, about: about["blocks"][0].update(depth="deep"), "record the gates anew"),
    "complete": (lambda arrays, about: about.update(complete=3), "state"),
    "no state": (lambda arrays, about: about.pop("state"), "state"),
    "missing": (lambda arrays, about: arrays.pop("2/gates/means"), "2/gates/means"),
    "shape": (lambda arrays, about: arrays.update({"2/gates/minimum": np.zeros(5)}), "2/gates/minimum"),
    "dtype": (lambda arrays, about: arrays.update({"0/gates/means": np.zeros((3, 16), "f4")}), "0/gates/means"),
    "edges": (lambda arrays, about: arrays.update({"0/gates/edges": np.zeros(65)}), "0/gates/edges"),
    "counts": (lambda arrays, about: arrays["0/gates/images"].fill(-1), "0/gates/edges or /images"),
    "nan": (lambda arrays, about: arrays["0/gates/means"].fill(np.nan), "0/gates/means"),
    "labels": (lambda arrays, about: arrays["sample/labels"].fill(77), "sample/labels"),
    "thumbnails": (lambda arrays, about: arrays.update({"sample/thumbnails": np.zeros((2, 4, 4), "u1")}), "thumbnails"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_contents_that_cannot_be_are_refused(recorded, tmp_path, name):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    recorded.save(good)
    change, match = CHANGES[name]
    _edited(good, bad, change)
    with pytest.raises(GatesError, match=rf"bad\.npz.*{match}"):
        load_gates(bad)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def _npz(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, data in entries.items():
            archive.writestr(f"{key}.npy", data)


def _npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def test_hostile_files_are_refused(tmp_path):
    path = tmp_path / "gates.npz"
    about = _npy(np.frombuffer(b'{"format": 1}', np.uint8))
    _npz(path, {"about": about, "x": _npy(np.array([_Trap()]), allow_pickle=True)})
    with pytest.raises(GatesError, match=r"gates\.npz.*not of its size.*record the gates anew"):
        load_gates(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    _npz(path, {"about": about, "x": header.getvalue()})
    with pytest.raises(GatesError, match="not of its size"):
        load_gates(path)
    _npz(path, {"about": about, "x": _npy(np.zeros(1 << 20))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(GatesError, match="no recording"):
        load_gates(path)
    _npz(path, {"about": _npy(np.frombuffer(b"[" * 100_000, np.uint8))})
    with pytest.raises(GatesError, match=r"gates\.npz"):
        load_gates(path)


def test_what_is_no_such_file_is_refused(recorded, tmp_path):
    path = tmp_path / "gates.npz"
    with pytest.raises(GatesError, match="no file .*gates.npz.*senet gates"):
        load_gates(path)
    with pytest.raises(GatesError, match="cannot read"):
        load_gates(tmp_path)
    for content in (b"", b"PK\x03\x04", b"a text", json.dumps({"format": 1}).encode()):
        path.write_bytes(content)
        with pytest.raises(GatesError, match="broken, cut short"):
            load_gates(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(GatesError, match="no recording"):
        load_gates(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(GatesError, match="no recording"):
        load_gates(path)


def test_files_that_are_cut_or_flipped_never_load_as_something_else(recorded, tmp_path):
    path, bad = tmp_path / "gates.npz", tmp_path / "bad.npz"
    recorded.save(path)
    whole, draw, good = path.read_bytes(), np.random.default_rng(0), flat(recorded)
    for length in (10, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        with pytest.raises(GatesError, match=r"bad\.npz"):
            load_gates(bad)
    for place in draw.integers(0, len(whole), 40):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(draw.integers(8))
        bad.write_bytes(flipped)
        try:
            found = load_gates(bad)
        except GatesError:
            continue
        assert flat(found) == good  # such as a date in the archive's directory


def test_a_file_that_cannot_be_written_leaves_the_old_one(recorded, tmp_path):
    with pytest.raises(OSError, match="no folder"):
        recorded.save(tmp_path / "missing" / "gates.npz")
