import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import senet
from senet.gates.recording.arrays_file import read_arrays, write_arrays
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.recorder import record_gates
from senet.utils.errors import GatesError
from tests.gates.recorded import flat, some_batches

NAMES = ["ant", "bee", "cat"]
# Written by senet 0.1: a block with hidden units, five images, a sample of two with thumbnails.
FILE_0_1 = Path(__file__).parents[2] / "files_0_1" / "gates.npz"


@pytest.fixture(scope="module")
def recorded():
    torch.manual_seed(0)
    model = senet.insert(senet.create_model("resnet20", num_classes=3), "conv3x3", squeeze="none", reduction=4)
    return record_gates(model, some_batches((3, 2), side=8), classes=NAMES, sample=2, thumbnail=4, correlation=True)


def test_a_file_gives_back_everything(recorded, tmp_path):
    path = tmp_path / "gates.safetensors"
    recorded.save(path)
    assert flat(load_gates(path)) == flat(recorded)
    assert [p.name for p in tmp_path.iterdir()] == ["gates.safetensors"]


def test_safetensors_reads_it_by_the_keys_that_are_documented(recorded, tmp_path):
    path = tmp_path / "gates.safetensors"
    recorded.save(path)
    arrays = load_file(path)
    assert np.array_equal(arrays["1/gates/means"], recorded.blocks[1].gates.means)
    assert np.array_equal(arrays["0/hidden/outputs/space"], recorded.blocks[0].hidden.outputs.space)
    assert np.array_equal(arrays["sample/thumbnails"], recorded.sample.thumbnails)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["about"])["format"] == 2


def test_a_loaded_recording_can_be_saved_and_merged_on(recorded, tmp_path):
    """Arrays that were read are modifiable, as resuming needs them, whatever their strides were."""
    first, second = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    recorded.blocks[0].gates.means = np.asfortranarray(recorded.blocks[0].gates.means)
    recorded.save(first)
    loaded = load_gates(first)
    assert flat(loaded) == flat(recorded)
    loaded.blocks[0].gates.merge(recorded.blocks[0].gates)
    loaded.save(second)
    assert load_gates(second).images == 2 * recorded.images


def test_a_file_of_0_1_loads_and_is_written_in_the_new_format(tmp_path):
    old = load_gates(FILE_0_1)
    assert (old.network, old.classes, old.images, old.complete) == ("Net", NAMES, 5, True)
    (block,) = old.blocks
    assert (block.name, block.channels, block.hidden_channels, block.activation) == ("se", 4, 2, "ReLU")
    with np.load(FILE_0_1) as arrays:
        assert json.loads(arrays["about"].tobytes())["format"] == 1
        assert np.array_equal(block.gates.means, arrays["0/gates/means"])
        assert np.array_equal(block.gates.comoments, arrays["0/gates/comoments"])
        assert np.array_equal(block.hidden.outputs.histogram, arrays["0/hidden/outputs/histogram"])
        assert np.array_equal(old.sample.thumbnails, arrays["sample/thumbnails"])
    assert old.state["finished"] is True
    old.save(tmp_path / "gates.safetensors")
    assert len(load_file(tmp_path / "gates.safetensors")) > 0
    assert flat(load_gates(tmp_path / "gates.safetensors")) == flat(old)


def test_a_network_of_one_layer_and_no_thumbnails(tmp_path):
    import timm

    model = timm.create_model("ese_vovnet19b_slim_dw", num_classes=3)
    gates = record_gates(model, some_batches((2,)), classes=NAMES, sample=0, thumbnail=None)
    gates.save(tmp_path / "g.safetensors")
    again = load_gates(tmp_path / "g.safetensors")
    assert flat(again) == flat(gates)
    assert again.blocks[0].hidden is None
    assert again.sample.thumbnails is None
    assert len(again.sample.indices) == 0


def _edited(path, target, change):
    """The file with its arrays changed: `change` takes and may edit them by key; the checksum is right."""
    about, arrays = read_arrays(path, 2)
    change(arrays, about)
    write_arrays(target, about, arrays)


CHANGES = {
    "newer": (lambda arrays, about: about.update(format=9), "format is 9.*upgrade senet"),
    "format": (lambda arrays, about: about.update(format="1"), "not a recording"),
    "classes": (lambda arrays, about: about["classes"].append("dog"), "gates/images"),
    "no classes": (lambda arrays, about: about.update(classes=[]), "list of classes"),
    "blocks": (lambda arrays, about: about.update(blocks=[]), "list of blocks"),
    "one more block": (lambda arrays, about: about["blocks"].append(about["blocks"][0]), "9/gates/images"),
    "name": (lambda arrays, about: about["blocks"][0].update(name=3), "name"),
    "kind of block": (lambda arrays, about: about.update(blocks=[3]), "record the gates again"),
    "depth": (lambda arrays, about: about["blocks"][0].update(depth="deep"), "record the gates again"),
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
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    recorded.save(good)
    change, match = CHANGES[name]
    _edited(good, bad, change)
    with pytest.raises(GatesError, match=rf"bad\.safetensors.*{match}"):
        load_gates(bad)


def _safetensors(path, header, content=b""):
    """A file with any header, of JSON or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def test_hostile_files_are_refused(recorded, tmp_path):
    path = tmp_path / "gates.safetensors"
    recorded.save(path)
    arrays = load_file(path)
    metadata = {"about": json.dumps({"format": 2})}
    save_file(arrays, path, metadata)  # another text, the old checksum
    with pytest.raises(GatesError, match=r"gates\.safetensors.*checksum does not match.*record the gates again"):
        load_gates(path)
    for shape, offsets in (((1 << 50,), (0, 1 << 53)), ((1 << 50,), (0, 8)), ((1,), (8, 16)), ((-1,), (0, 8))):
        entry = {"dtype": "F64", "shape": shape, "data_offsets": offsets}
        _safetensors(path, {"__metadata__": metadata, "x": entry}, bytes(8))
        with pytest.raises(GatesError, match=r"gates\.safetensors.*damaged"):
            load_gates(path)
    save_file(arrays, path)
    with pytest.raises(GatesError, match="not a recording"):
        load_gates(path)
    save_file({}, path, {"about": "[" * 100_000})
    with pytest.raises(GatesError, match=r"gates\.safetensors.*nested too deeply"):
        load_gates(path)
    path.write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(GatesError, match=r"gates\.safetensors.*damaged"):
        load_gates(path)


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


def test_hostile_archives_are_refused(tmp_path):
    path = tmp_path / "gates.npz"
    about = _npy(np.frombuffer(b'{"format": 1}', np.uint8))
    _npz(path, {"about": about, "x": _npy(np.array([_Trap()]), allow_pickle=True)})
    with pytest.raises(GatesError, match=r"gates\.npz.*not of its size.*record the gates again"):
        load_gates(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    _npz(path, {"about": about, "x": header.getvalue()})
    with pytest.raises(GatesError, match="not of its size"):
        load_gates(path)
    _npz(path, {"about": about, "x": _npy(np.zeros(1 << 20))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(GatesError, match="not a recording"):
        load_gates(path)
    _npz(path, {"about": _npy(np.frombuffer(b"[" * 100_000, np.uint8))})
    with pytest.raises(GatesError, match=r"gates\.npz"):
        load_gates(path)


def test_what_is_no_such_file_is_refused(recorded, tmp_path):
    path = tmp_path / "gates.safetensors"
    with pytest.raises(GatesError, match="file not found: .*gates.safetensors.*senet gates"):
        load_gates(path)
    with pytest.raises(GatesError, match="cannot read"):
        load_gates(tmp_path)
    for content in (b"", b"PK\x03\x04", b"a text", json.dumps({"format": 1}).encode()):
        path.write_bytes(content)
        with pytest.raises(GatesError, match="damaged, incomplete"):
            load_gates(path)
    save_file({"a": np.zeros(3)}, path, {"about": "{}"})
    with pytest.raises(GatesError, match="not a recording"):
        load_gates(path)
    path = tmp_path / "gates.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(GatesError, match="not a recording"):
        load_gates(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(GatesError, match="not a recording"):
        load_gates(path)


def test_files_that_are_cut_or_flipped_never_load_as_something_else(recorded, tmp_path):
    path, bad = tmp_path / "gates.safetensors", tmp_path / "bad.safetensors"
    recorded.save(path)
    whole, draw, good = path.read_bytes(), np.random.default_rng(0), flat(recorded)
    for length in (10, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        with pytest.raises(GatesError, match=r"bad\.safetensors"):
            load_gates(bad)
    for place in draw.integers(0, len(whole), 40):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(draw.integers(8))
        bad.write_bytes(flipped)
        try:
            found = load_gates(bad)
        except GatesError:
            continue
        assert flat(found) == good  # such as a space at the end of the header


def test_a_file_that_cannot_be_written_leaves_the_old_one(recorded, tmp_path):
    with pytest.raises(OSError, match="no folder"):
        recorded.save(tmp_path / "missing" / "gates.safetensors")
