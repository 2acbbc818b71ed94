import base64
import gzip
import hashlib
import html
import json
import re
import struct
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senet.gates.recording.record import Gates
from senet.gates.report import write_page
from senet.gates.report.clustering import binned, cluster_order
from senet.gates.report.grad_cam import GradCam
from senet.gates.report.packed_arrays import PackedArrays
from senet.gates.report.selection import example_classes, sample_channels
from senet.utils.errors import GatesError
from tests.gates.simulated import diagnosed, se_resnet50, simulated

PLAN = [("layer1.se", 2, 1, 24, "class-agnostic"), ("layer2.se", 3, 1, 60, "class-specific")]
CLASSES = ("plane", "</script><script>alert(1)</script>", "pug", "unseen", "a&b")


@pytest.fixture(scope="module")
def gates() -> Gates:
    return simulated(PLAN, CLASSES, missing=(3,))


def opened(page: str) -> tuple[dict[str, Any], bytes]:
    """What the page's script reads: the header, and the bytes of the arrays."""
    data = re.search(r'<script type="application/octet-stream" id="data">([^<]*)</script>', page)[1]
    raw = gzip.decompress(base64.b64decode(data))
    (length,) = struct.unpack_from("<I", raw)
    return json.loads(raw[4 : 4 + length]), raw[4 + length :]


def array(data: bytes, reference: dict[str, Any]) -> np.ndarray:
    width = {"u1": 1, "u2": 2, "f4": 4}[reference["kind"]]
    count = int(np.prod(reference["shape"]))
    planes = np.frombuffer(data, np.uint8, count * width, reference["at"]).reshape(width, count)
    kind = {"u1": "u1", "u2": "<u2", "f4": "<f4"}[reference["kind"]]
    values = np.ascontiguousarray(planes.T).view(kind).reshape(reference["shape"]).astype(np.float64)
    if "low" not in reference:
        return values
    low, high = (array(data, reference[end]).reshape(*values.shape[:-1], 1) for end in ("low", "high"))
    return low + values / (2 ** reference["bits"] - 1) * (high - low)


def write(gates: Gates, path: Path, **options: object) -> str:
    write_page(gates, diagnosed(gates), path, **options)
    return path.read_text("utf-8")


def test_means_by_class_are_in_the_page(gates: Gates, tmp_path: Path) -> None:
    header, data = opened(write(gates, tmp_path / "gates.html"))
    kept = header["kept"]
    assert kept == [0, 1, 2, 4]  # not the one without images
    for block, shown in zip(gates.blocks, header["blocks"], strict=True):
        assert shown["sampled"] == list(range(block.channels))
        expected = block.gates.means[kept].T
        step = np.ptp(expected, axis=1).max() / 65535
        np.testing.assert_allclose(array(data, shown["means"]), expected, atol=0.51 * step + 1e-7)
        expected = block.gates.class_deviations[kept].T
        step = np.ptp(expected, axis=1).max() / 255 + np.ptp(expected) / 65535
        np.testing.assert_allclose(array(data, shown["deviations"]), expected, atol=0.51 * step)
        eta = block.gates.between / (block.gates.between + block.gates.within)
        np.testing.assert_allclose(array(data, shown["numbers"]["eta"]), eta, atol=1e-5)
        assert sum(shown["histogram"]["total"]) == block.gates.histogram.sum()


def test_images_at_both_ends_of_a_channel_are_in_the_page(gates: Gates, tmp_path: Path) -> None:
    header, data = opened(write(gates, tmp_path / "gates.html"))
    for block, shown in zip(gates.blocks, header["blocks"], strict=True):
        places = array(data, shown["ends"]["images"]).astype(int)
        recorded = block.sample_gates
        for channel, ends in enumerate(places):
            assert recorded[ends[0], channel] == recorded[:, channel].min()
            assert recorded[ends[len(ends) // 2], channel] == recorded[:, channel].max()


def test_heat_map_holds_the_means_in_its_orders(gates: Gates, tmp_path: Path) -> None:
    header, data = opened(write(gates, tmp_path / "gates.html"))
    for block, shown in zip(gates.blocks, header["blocks"], strict=True):
        classes, channels = (array(data, shown["heat"][key]).astype(int) for key in ("classes", "channels"))
        assert sorted(classes) == [0, 1, 2, 4]
        assert sorted(channels) == list(range(block.channels))
        expected = block.gates.means[np.ix_(classes, channels)].T
        np.testing.assert_allclose(array(data, shown["heat"]["cells"]), expected, atol=0.003)


def test_grad_cam_is_in_the_page(gates: Gates, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    cam = GradCam(np.array([5, 7]), {"layer2.se": values})
    header, data = opened(write(gates, tmp_path / "gates.html", grad_cam=cam))
    assert header["cam"]["places"] == [5, 7]
    assert list(header["cam"]["maps"]) == ["layer2.se"]
    np.testing.assert_allclose(array(data, header["cam"]["maps"]["layer2.se"]) / 255, values, atol=0.5 / 255)
    assert opened(write(gates, tmp_path / "gates.html"))[0]["cam"] is None


def test_page_says_what_was_found(gates: Gates, tmp_path: Path) -> None:
    header, _ = opened(write(gates, tmp_path / "gates.html"))
    assert header["first"] == 1  # the class-specific block, whose ablation costs most
    assert header["summary"].startswith("SE_3_1 matters most: with its gates held at their means")


def test_page_runs_its_own_scripts_and_loads_nothing(gates: Gates, tmp_path: Path) -> None:
    page = write(gates, tmp_path / "gates.html")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none';")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 3
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", markup)


def test_names_of_strangers_are_text(gates: Gates, tmp_path: Path) -> None:
    page = write(gates, tmp_path / "gates.html", title="<img src=x onerror=alert(1)>%%data%%")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;%%data%%" in page
    assert CLASSES[1] in opened(page)[0]["classes"]


def test_less_is_kept_for_a_smaller_budget(gates: Gates, tmp_path: Path) -> None:
    large = simulated(
        [("a", None, 1, 400, "class-specific"), ("b", None, 1, 800, "varied")], [f"{n}" for n in range(90)]
    )
    sizes = []
    for budget in (6_000_000, 1_100_000, 850_000):
        page = write(large, tmp_path / "gates.html", budget=budget)
        sizes.append(len(page.encode()))
        assert sizes[-1] <= budget
        header, data = opened(page)
        # The classes at the ends of a channel are right at every level of detail.
        for block, shown in zip(large.blocks, header["blocks"], strict=True):
            if shown["extremes"]:
                ends = array(data, shown["extremes"]["classes"]).astype(int)
                assert np.array_equal(ends[:, 0], block.gates.means.argmin(0))
                assert np.array_equal(ends[:, 3], block.gates.means.argmax(0))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_budget_that_nothing_fits_into(gates: Gates, tmp_path: Path) -> None:
    with pytest.raises(GatesError, match="raise the budget"):
        write(gates, tmp_path / "gates.html", budget=1000)
    assert not list(tmp_path.iterdir())


def test_nothing_to_show(tmp_path: Path) -> None:
    empty = simulated(PLAN, ["a", "b"], missing=(0, 1))
    with pytest.raises(GatesError, match="record some data first"):
        write(empty, tmp_path / "gates.html")


def test_diagnosis_of_another_network(gates: Gates, tmp_path: Path) -> None:
    other = simulated(PLAN[:1], ["a", "b"])
    with pytest.raises(GatesError, match=r"has the blocks layer1\.se, the recording layer1\.se, layer2\.se"):
        write_page(gates, diagnosed(other), tmp_path / "gates.html")


def test_folder_that_is_not_there(gates: Gates, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make it first"):
        write(gates, tmp_path / "missing" / "gates.html")


@pytest.mark.slow
def test_thousand_classes_fit_into_six_megabytes(tmp_path: Path) -> None:
    gates = se_resnet50(1000)
    page = write(gates, tmp_path / "gates.html")
    assert len(page.encode()) <= 6_000_000
    header, _ = opened(page)
    assert len(header["kept"]) == 1000
    assert all(len(block["sampled"]) == 50 for block in header["blocks"])
    assert header["bits"] == 12
    assert len(header["wide"]) >= 4


@pytest.mark.parametrize("bits", [6, 8, 12, 16])
def test_rounding_is_at_most_half_a_step(bits: int) -> None:
    values = np.random.default_rng(0).normal(size=(7, 40)) * np.logspace(-3, 3, 7)[:, None]
    values[3] = 0.25
    pack = PackedArrays()
    reference = pack.quantized(values, bits)
    _, data = opened(f'<script type="application/octet-stream" id="data">{pack.text({})}</script>')
    ends = np.ptp(values) / 65535 if bits <= 8 else 1e-7 * np.abs(values).max(1, keepdims=True)
    error = np.abs(array(data, reference) - values)
    assert (error <= 0.501 * np.ptp(values, axis=1, keepdims=True) / (2**bits - 1) + ends).all()


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="use a wider kind"):
        PackedArrays().exact([0, 256], "u1")


def test_alike_rows_are_neighbours() -> None:
    draw = np.random.default_rng(0)
    group = draw.permutation(np.repeat(np.arange(4), 20))
    rows = draw.normal(size=(4, 100))[group] + 0.1 * draw.normal(size=(80, 100))
    for values in (rows, rows[:, :10]):  # with and without the reduction to a few directions
        order = cluster_order(values)
        assert sorted(order) == list(range(80))
        assert np.count_nonzero(np.diff(group[order])) == 3


def test_without_scipy(gates: Gates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(ValueError, match=r"pip install -e '.*\[report\]'"):
        write(gates, tmp_path / "gates.html")


def test_cells_are_means_of_their_parts() -> None:
    values = np.random.default_rng(0).normal(size=(7, 5))
    cells = binned(values, 3, 9)
    assert cells.shape == (3, 5)
    expected = np.stack([values[0:2].mean(0), values[2:4].mean(0), values[4:7].mean(0)])
    np.testing.assert_allclose(cells, expected, rtol=1e-12)


def test_examples_are_those_of_the_paper(gates: Gates) -> None:
    assert [gates.classes[place] for place in example_classes(gates)][:2] == ["plane", "pug"]
    assert 3 not in example_classes(gates, count=5)
    assert example_classes(gates, ["a&b"]) == [4]
    with pytest.raises(ValueError, match="did you mean 'plane'"):
        example_classes(gates, ["plan"])
    with pytest.raises(ValueError, match="choose another"):
        example_classes(gates, ["unseen"])


def test_sampled_channels() -> None:
    sampled = sample_channels(256, 50)
    assert len(set(sampled)) == 50
    assert np.array_equal(sampled, np.sort(sampled))
    assert np.array_equal(sampled, sample_channels(256, 50))
    assert not np.array_equal(sampled, sample_channels(256, 50, seed=1))
    assert np.array_equal(sample_channels(8, 50), np.arange(8))
    with pytest.raises(ValueError, match="1 or more"):
        sample_channels(8, 0)


def test_library_is_what_its_authors_published() -> None:
    folder = resources.files("senet.gates.report").joinpath("vendor")
    for source in json.loads(folder.joinpath("sources.json").read_text("utf-8")):
        content = folder.joinpath(source["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == source["sha256"]
        assert f"v{source['version']} " in content[:120].decode()
        assert "Permission to use, copy, modify" in folder.joinpath(source["license"]).read_text("utf-8")
