from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from senet.data import MultiLabelData, open_data, open_splits
from senet.utils.errors import DataError
from tests.images import picture, write_classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path, {"images": 6})


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{path}"


def test_one_label_for_each_image_is_a_class(root: Path) -> None:
    data = open_data(write(root / "list.csv", "path,label", "images/0.png,10", "images/1.png,2", "images/3.png,10"))
    assert type(data).__name__ == "ImageData"
    assert (data.classes, data.labels.tolist()) == (["2", "10"], [1, 0, 1])
    assert np.array_equal(np.asarray(data[2][0]), np.asarray(picture(3)))


def test_several_labels_and_none(root: Path) -> None:
    spec = write(root / "list.csv", "images/0.png,cat,dog", "images/1.png,,", 'images/2.png,"a, b"')
    data = open_data(spec)
    assert isinstance(data, MultiLabelData)
    assert data.classes == ["a, b", "cat", "dog"]
    assert data.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert data.counts.tolist() == [1, 1, 1]
    assert data[0][1].tolist() == [0, 1, 1]


def test_a_folder_has_splits_whose_labels_are_those_of_training(root: Path) -> None:
    write(root / "train.csv", "images/0.png,cat,dog", "images/1.png,bird")
    write(root / "val.csv", "images/2.png,dog")
    training, validation = open_splits(f"csv:{root}")
    assert validation.classes == training.classes == ["bird", "cat", "dog"]
    assert MultiLabelData.of(validation).labels.tolist() == [[0, 0, 1]]


def test_other_label_orders_and_a_fraction_for_validation(root: Path) -> None:
    spec = write(root / "list.csv", *(f"images/{n}.png,a,{'b' if n % 2 else 'c'}" for n in range(6)))
    data = open_data(spec).with_classes(["c", "none", "b", "a"])
    assert data.labels[:2].tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]
    training, validation = open_splits(spec, val_fraction=0.34)
    assert (len(training), len(validation)) == (4, 2)


def test_images_below_another_folder(root: Path) -> None:
    (root / "lists").mkdir()
    spec = write(root / "lists" / "list.csv", "0.png,a", "1.png,b")
    assert len(open_data(f"{spec}?root={root / 'images'}")) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty; expected lines path,label"),
        (["images/0.png,a", "images/9.png,a"], "line 2 of .* names a file that does not exist: .*9.png"),
        (["images/0.png,a", "images/1.png,b", "images/0.png,c"], "line 3 of .* lists images/0.png again, after line 1"),
        (["images/0.png,a;b", "images/1.png,b"], "line 1 of .* has the label 'a;b'; give one label in each cell"),
        (["images/0.png,a,b,a"], "line 1 of .* gives the label 'a' twice"),
        ([",a"], "line 1 of .* has no path"),
        (["images/0.png", "images/1.png"], "has no labels; expected lines path,label"),
        (['images/0.png,"a'], "is not CSV"),
        (["path,cat,dog", "images/0.png,1,0"], "has a column 'cat'; expected the path and then only labels"),
        (["path,label,split", "images/0.png,a,train"], "has a column 'split'"),
    ],
)
def test_faults_name_file_and_line(root: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(write(root / "list.csv", *lines))


def test_missing_lists_and_unknown_options(root: Path) -> None:
    with pytest.raises(DataError, match=r"file list .*none.csv does not exist; give csv:FILE"):
        open_data(f"csv:{root}/none.csv")
    with pytest.raises(DataError, match=r"has no train.csv; add it"):
        open_data(f"csv:{root}")
    with pytest.raises(DataError, match="unknown option of csv: 'roots'; did you mean 'root'"):
        open_data(f"csv:{root}/list.csv?roots=x")


def parquet(file: Path, /, **columns: list[object]) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return f"parquet:{file}"


def test_parquet_is_read_as_csv_is(root: Path) -> None:
    files = [f"images/{n}.png" for n in range(3)]
    single = open_data(parquet(root / "single.parquet", path=files, label=["10", "2", "10"]))
    assert type(single).__name__ == "ImageData"
    assert (single.classes, single.labels.tolist()) == (["2", "10"], [1, 0, 1])
    numbers = open_data(parquet(root / "numbers.parquet", label=[10, 2, 10], path=files))
    assert (numbers.classes, numbers.labels.tolist()) == (["2", "10"], [1, 0, 1])
    several = open_data(parquet(root / "train.parquet", path=files, labels=[["cat", "dog"], [], None]))
    assert isinstance(several, MultiLabelData)
    assert several.labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    parquet(root / "val.parquet", path=files[:1], labels=[["dog"]])
    training, validation = open_splits(f"parquet:{root}")
    assert (len(training), len(validation), validation.classes) == (3, 1, ["cat", "dog"])


def test_faults_of_parquet(root: Path) -> None:
    file, out = "images/0.png", root / "list.parquet"
    with pytest.raises(DataError, match="has the columns file, label; expected path, and label or labels"):
        open_data(parquet(out, file=[file], label=["a"]))
    with pytest.raises(DataError, match="line 2 of .*parquet lists images/0.png again, after line 1"):
        open_data(parquet(out, path=[file, file], label=["a", "b"]))
    with pytest.raises(DataError, match=r"line 1 of .* has \[0.5\]; expected texts, or lists of texts"):
        open_data(parquet(out, path=[file], labels=[[0.5]]))
    out.write_text("path,label")
    with pytest.raises(DataError, match="list.parquet is not text: give parquet:.*list.parquet"):
        open_data(f"csv:{out}")
    with pytest.raises(DataError, match="the file list .*list.parquet is not Parquet"):
        open_data(f"parquet:{out}")
    parquet(root / "train.parquet", path=[file], label=["a"])
    with pytest.raises(DataError, match=r"has no val\.parquet; add it, or give the file itself as parquet:FILE"):
        open_data(f"parquet:{root}")
