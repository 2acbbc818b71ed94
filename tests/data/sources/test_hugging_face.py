import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from senet import DataError
from senet.data import ImageData, open_data, open_splits
from tests.images import corrupt_jpeg, picture, write_classes

datasets = pytest.importorskip("datasets")

NAMES = ["cat", "dog"]
FEATURES = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, and no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(seeds: list[int], labels: list[Any], features: Any = FEATURES) -> Any:
    """A data set of pictures by their seeds, with labels."""
    first, second = features
    return datasets.Dataset.from_dict({first: [picture(n) for n in seeds], second: labels}, features=features)


def assert_pictures(data: ImageData, seeds: list[int], names: list[str]) -> None:
    assert [data.classes[label] for label in data.labels] == names
    assert len(data) == len(seeds)
    for index, seed in enumerate(seeds):
        image, label = data[index]
        np.testing.assert_array_equal(image, picture(seed))
        assert label == data.labels[index]


@pytest.fixture(params=["save_to_disk", "parquet", "parquet, streaming", "imagefolder", "imagefolder, streaming"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two cats and a dog for training, a dog for validation, in every form."""
    root = tmp_path / "data"
    kind, _, streaming = request.param.partition(", ")
    if kind == "imagefolder":
        write_classes(root / "train", {"cat": 2, "dog": 1})
        (root / "validation" / "cat").mkdir(parents=True)
        (root / "validation" / "dog").mkdir()
        picture(9).save(root / "validation" / "dog" / "0.png")
        picture(8).save(root / "validation" / "cat" / "0.png")
    else:
        parts = datasets.DatasetDict({"train": rows([0, 1, 2], [0, 0, 1]), "validation": rows([8, 9], [0, 1])})
        if kind == "save_to_disk":
            parts.save_to_disk(root)
        else:
            root.mkdir()
            for name, part in parts.items():
                part.to_parquet(root / f"{name}-00000-of-00001.parquet")
    options = {"imagefolder": f"imagefolder?data_dir={root}", "parquet": f"parquet?data_dir={root}"}
    spec = f"hf:{options.get(kind, root)}"
    return f"{spec}&streaming=true" if streaming else spec


def test_splits(spec: str) -> None:
    training, validation = open_splits(spec)
    assert training.classes == NAMES
    assert_pictures(training, [0, 1, 2], ["cat", "cat", "dog"])
    assert_pictures(validation, [8, 9], ["cat", "dog"])
    assert training.has_splits
    assert validation.name(1).endswith(" validation[1]")


def test_split_that_the_spec_names(spec: str) -> None:
    for split in ("train", "val"):
        data = open_data(f"{spec}{'&' if '?' in spec else '?'}split=validation", split)
        assert_pictures(data, [8, 9], ["cat", "dog"])
        assert not data.has_splits


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes(spec: str) -> None:
    data = open_data(spec, "train")
    assert_pictures(pickle.loads(pickle.dumps(data)), [0, 1, 2], ["cat", "cat", "dog"])
    read = DataLoader(data, batch_size=None, num_workers=2, collate_fn=None)
    assert [np.asarray(image).tobytes() for image, _ in read] == [picture(n).tobytes() for n in range(3)]


def test_labels_need_no_decoding(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> Any:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refused)
    assert open_data(spec, "train").labels.tolist() == [0, 0, 1]


def test_a_local_folder_of_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows([3, 4], [1, 0]).to_parquet(tmp_path / "set" / "train.parquet")
    data = open_data(f"hf:{tmp_path / 'set'}")
    assert_pictures(data, [3, 4], ["dog", "cat"])
    assert not data.has_splits
    files = open_data(f"hf:parquet?data_files={tmp_path / 'set' / '*.parquet'}&split=train[:50%25]")
    assert_pictures(files, [3], ["dog"])


def test_a_name_on_the_hub_is_read_from_the_cache(tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "nobody___pets" / "default" / "0.0.0" / ("a" * 40)
    (tmp_path / "pets").mkdir()
    for split, seeds in (("train", [1, 2]), ("test", [3, 4])):
        rows(seeds, [1, 0]).to_parquet(tmp_path / "pets" / f"{split}.parquet")
    open_data(f"hf:{tmp_path / 'pets'}")  # writes a cache of the form that the hub's have
    next((tmp_path / "cache").rglob("dataset_info.json")).parent.rename(make(cached))
    training, validation = open_splits("hf:nobody/pets")
    assert_pictures(training, [1, 2], ["dog", "cat"])
    assert_pictures(validation, [3, 4], ["dog", "cat"])


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_streaming_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows([3, 4], [1, 0]).to_parquet(tmp_path / "set" / "train.parquet")
    data = open_data(f"hf:{tmp_path / 'set'}?streaming=true")
    # An empty lock is left, and nothing of the data.
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == 0
    (tmp_path / "set" / "train.parquet").unlink()
    assert_pictures(data, [3, 4], ["dog", "cat"])  # kept in memory


def test_a_saved_data_set_without_splits(tmp_path: Path) -> None:
    rows([3, 4], [1, 0]).select([1, 0]).with_format("numpy").save_to_disk(tmp_path / "one")
    for split in ("train", "val"):
        data = open_data(f"hf:{tmp_path / 'one'}", split)
        assert_pictures(data, [4, 3], ["cat", "dog"])
        assert not data.has_splits
    with pytest.raises(DataError, match="has no validation split; give --val-data"):
        open_splits(f"hf:{tmp_path / 'one'}")


@pytest.mark.parametrize(
    ("names", "training", "validation"),
    [
        (("train", "test"), "train", "test"),
        (("train", "test", "valid"), "train", "valid"),
        (("test", "val", "train"), "train", "val"),
        (("train", "valid", "validation"), "train", "validation"),
        (("test",), "test", "test"),
        (("a", "test"), None, "test"),
        (("train", "extra"), "train", None),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, ...], training: str | None, validation: str | None) -> None:
    parts = {name: rows([n], [0]) for n, name in enumerate(names)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    for split, chosen in (("train", training), ("val", validation)):
        if chosen is None:
            with pytest.raises(DataError, match=f"has the splits {', '.join(names)}; choose one with split="):
                open_data(f"hf:{tmp_path / 'set'}", split)
        else:
            data = open_data(f"hf:{tmp_path / 'set'}", split)
            assert_pictures(data, [names.index(chosen)], ["cat"])
            assert data.has_splits == (training is not None and validation is not None and len(names) > 1)


def save(root: Path, features: dict[str, Any], **columns: list[Any]) -> str:
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(root)
    return f"hf:{root}"


def test_columns_that_the_spec_names(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=["x", "y", "z"])
    features = {
        "before": datasets.Image(),
        "after": datasets.Image(),
        "fine_label": classes,
        "coarse_label": datasets.ClassLabel(names=["p", "q"]),
        "number": datasets.Value("int32"),
        "text": datasets.Value("string"),
        "wide": datasets.Value("float32"),
    }
    spec = save(
        tmp_path / "set",
        features,
        before=[picture(0), picture(1)],
        after=[picture(2), picture(3)],
        fine_label=[2, 0],
        coarse_label=[1, 0],
        number=[3, 1],
        text=["b10", "b9"],
        wide=[0.5, 1.5],
    )
    assert_pictures(open_data(f"{spec}?image=after&label=fine_label"), [2, 3], ["z", "x"])
    assert_pictures(open_data(f"{spec}?image=before&label=coarse_label"), [0, 1], ["q", "p"])
    assert_pictures(open_data(f"{spec}?image=before&label=number"), [0, 1], ["3", "1"])
    texts = open_data(f"{spec}?image=before&label=text")
    assert_pictures(texts, [0, 1], ["b10", "b9"])
    assert texts.classes == ["b9", "b10"]
    for query, message in (
        ("label=text", r"has 2 columns of the type Image \(before, after\); give image=COLUMN, one of before, after"),
        ("image=after", r"2 columns of the type ClassLabel \(fine_label, coarse_label\); give label=COLUMN"),
        ("image=befor&label=text", "unknown column 'befor'; did you mean 'before'?"),
        (
            "image=after&label=wide",
            r"the column 'wide' \(.*float32.*\) does not hold classes; give label=COLUMN of whole",
        ),
        ("image=number&label=text", "cannot read 'hf:.*"),
    ):
        with pytest.raises(DataError, match=message.replace("?", r"\?")):
            open_data(f"{spec}?{query}")


def test_files_in_a_plain_column(tmp_path: Path) -> None:
    # Parquet that others wrote has bytes, without Hugging Face's word that they are images.
    file = io.BytesIO()
    picture(5).save(file, "PNG")
    spec = save(
        tmp_path / "set",
        {"png": datasets.Value("binary"), "label": datasets.Value("int64")},
        png=[file.getvalue()],
        label=[0],
    )
    assert_pictures(open_data(f"{spec}?image=png&label=label"), [5], ["0"])
    with pytest.raises(DataError, match="has 0 columns of the type Image; give image=COLUMN, one of png, label"):
        open_data(spec)


@pytest.mark.parametrize("streaming", ["", "&streaming=true"])
def test_hidden_labels(tmp_path: Path, streaming: str) -> None:
    (tmp_path / "set").mkdir()
    for name, labels in (("train", [0, 1]), ("test", [-1, -1])):
        rows([0, 1], labels).to_parquet(tmp_path / "set" / f"{name}.parquet")
    spec = f"hf:parquet?data_dir={tmp_path / 'set'}{streaming}"
    assert open_data(spec, "train").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="2 of 2 images of hf:parquet test have no label .* give another one with spl"):
        open_data(spec)


def test_broken_and_missing_images_are_named(tmp_path: Path) -> None:
    images = [{"bytes": corrupt_jpeg(), "path": None}, None]
    data = open_data(save(tmp_path / "set", dict(FEATURES), img=images, label=[0, 1]))
    for index, reason in enumerate(("image file is truncated", "its row has no image")):
        with pytest.raises(DataError, match=rf"cannot read the image hf:.*set train\[{index}\]: {reason}"):
            data[index]
    root = write_classes(tmp_path / "folder", {"a": 2, "b": 1})
    data = open_data(f"hf:imagefolder?data_dir={root}")
    (root / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image hf:imagefolder train\[1\]: No such file or directory"):
        data[1]
    np.testing.assert_array_equal(data[2][0], picture(2))


@pytest.mark.parametrize("streaming", ["", "&streaming=true"])
def test_no_images(tmp_path: Path, streaming: str) -> None:
    rows([], []).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"hf:parquet.* (has no images|corresponds to no data)"):
        open_data(f"hf:parquet?data_files={tmp_path / 'none.parquet'}{streaming}")


def test_columns_that_are_not_known_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, streaming: bool) -> Any:
        return {"train": datasets.IterableDataset.from_generator(lambda: iter([{"img": picture(0), "label": 0}]))}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="does not say what its columns hold; open it without streaming=true"):
        open_data("hf:x?streaming=true")


def test_versions_that_could_run_code_get_trust_remote_code_false(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []

    def load_dataset(name: str, streaming: bool, trust_remote_code: bool | None = None) -> Any:
        reported.append(trust_remote_code)
        return {"train": rows([0], [0])}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert_pictures(open_data("hf:x"), [0], ["cat"])
    assert reported == [False]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        DataError, match=r"'hf:mnist' needs Hugging Face's datasets \(.+\): pip install -e '.*\[train\]'"
    ):
        open_data("hf:mnist")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:", "invalid spec 'hf:': expected hf:NAME?split=SPLIT, with the name or folder of"),
        ("hf:x?spilt=train", "unknown option of hf: 'spilt'; did you mean 'split'?"),
        ("hf:x?trust_remote_code=true", "unknown option of hf: 'trust_remote_code'"),
        ("hf:x?streaming=yes", "streaming must be true or false, got 'yes'"),
        ("hf:nobody/nothing", "cannot open 'hf:nobody/nothing': "),
        ("hf:nobody/nothing", "a name on the hub is read from the cache once it is there"),
        ("hf:imagefolder?data_dir=nowhere", "cannot open 'hf:imagefolder?data_dir=nowhere': "),
        ("hf:ROOT?split=tset", "unknown split 'tset'; did you mean 'test'?"),
        ("hf:ROOT?name=plain", "a folder of save_to_disk takes no name"),
    ],
)
def test_bad_spec(tmp_path: Path, spec: str, message: str) -> None:
    datasets.DatasetDict({"train": rows([0], [0]), "test": rows([1], [1])}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError) as caught:
        open_data(spec.replace("ROOT", str(tmp_path / "set")))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_of_a_data_set_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="cannot open 'hf:"):
        open_data(f"hf:{tmp_path / 'set'}")
    assert not (tmp_path / "ran").exists()
