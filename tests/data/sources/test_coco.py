import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import senet
from senet.data import BoxData, MultiLabelData, Preprocessing, check_data, open_data, open_loader, open_splits
from senet.utils.errors import DataError, DataWarning
from tests.data.coco_sets import boxes_of, content, rewrite, write_coco
from tests.images import picture

PREPROCESSING = Preprocessing(16, 16, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "set")


@pytest.fixture
def root(sets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sets, tmp_path / "set"))


def opened(root: Path, split: Any = "train") -> BoxData:
    data = open_data(f"coco:{root}", split)
    assert isinstance(data, BoxData)
    return data


def test_boxes_are_corners_and_categories_are_numbered_by_their_ids(sets: Path) -> None:
    data = opened(sets)
    assert (data.classes, data.image_ids, data.rows) == (["cat", "dog"], [10, 11, 12, 13, 14], 2)
    for number, boxes in enumerate(data.boxes):
        corners = [[x, y, x + width, y + height] for x, y, width, height in boxes_of(number)]
        assert boxes.tolist() == corners
    assert data.categories[0].tolist() == [1, 0]
    assert data.areas[0].tolist() == [12 * 15.5, 9 * 20]
    assert data.sizes[1] == (36, 24)
    assert np.array_equal(np.asarray(data[1][0]), np.asarray(picture(1, 24, 36)))
    assert not data.faults


def test_a_spec_of_folders_and_files(sets: Path, tmp_path: Path) -> None:
    images = tmp_path / "images, all"
    shutil.copytree(sets / "train", images)
    spec = f"coco:?train={images},{sets / 'train.json'}&val={sets / 'val'},{sets / 'val.json'}"
    training, validation = open_splits(spec)
    assert (len(training), len(validation), validation.classes) == (5, 2, ["cat", "dog"])
    alone = f"coco:?train={images},{sets / 'train.json'}"
    assert [len(split) for split in open_splits(alone, val_fraction=0.4)] == [3, 2]
    with pytest.raises(DataError, match="no validation split"):
        open_splits(alone)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("coco:", "must be coco:DIR, or coco:"),
        ("coco:{}?train=a,b", "must be coco:DIR, or coco:"),
        ("coco:{}/train", r"has no train\.json; add"),
        ("coco:?test=a,b", "Choose from: train, val"),
        ("coco:?train={}", "expected IMAGES,FILE.json"),
        ("coco:?train={}/none,{}/train.json", "folder of images .* does not exist"),
        ("coco:?train={}/train,{}/none.json", "annotation file .* does not exist"),
    ],
)
def test_an_invalid_spec(sets: Path, spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(spec.replace("{}", str(sets)), "train")


def test_categories_of_validation_are_those_of_training_by_name(root: Path) -> None:
    other = content(2)
    other["categories"] = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    rewrite(root, other, "val")
    validation = open_splits(f"coco:{root}")[1]
    assert isinstance(validation, BoxData)
    assert validation.classes == ["cat", "dog"]
    assert [one.tolist() for one in validation.categories] == [[0, 1], [0, 1]]  # ids 7 and 3, other names
    assert opened(root, "val").categories[0].tolist() == [1, 0]


def test_categories_serve_as_labels(root: Path) -> None:
    whole = content(5)
    del whole["annotations"][1]  # the cat of the first image
    rewrite(root, whole)
    data = MultiLabelData.of(opened(root))
    assert type(data) is MultiLabelData
    assert data.labels[:2].tolist() == [[0, 1], [1, 1]]
    assert data[0][1].tolist() == [0, 1]


def images(whole: Any) -> Any:
    return whole["images"]


def first(whole: Any) -> Any:
    return whole["annotations"][0]


# What is wrong, the image or annotation that is left out, and the reason.
FAULTS: dict[str, tuple[Any, str, int | None, str]] = {
    "outside": (lambda w: first(w).update(bbox=[30, 2, 12, 5]), "annotation", 100, "not inside the image of 40x30"),
    "above": (lambda w: first(w).update(bbox=[1, -3, 12, 5]), "annotation", 100, "not inside the image"),
    "no width": (lambda w: first(w).update(bbox=[1, 2, 0, 5]), "annotation", 100, "no size"),
    "negative": (lambda w: first(w).update(bbox=[9, 2, -4, 5]), "annotation", 100, "no size"),
    "thin": (lambda w: first(w).update(bbox=[9, 2, 1e-6, 5]), "annotation", 100, "less than 0.1 pixels"),
    "at the edge": (lambda w: first(w).update(bbox=[40, 2, 1, 5]), "annotation", 100, "less than 0.1 pixels"),
    "not a number": (lambda w: first(w).update(bbox=[float("nan"), 2, 1, 5]), "annotation", 100, "four numbers"),
    "infinite": (lambda w: first(w).update(bbox=[1, 2, float("inf"), 5]), "annotation", 100, "four numbers"),
    "three numbers": (lambda w: first(w).update(bbox=[1, 2, 3]), "annotation", 100, "four numbers"),
    "text": (lambda w: first(w).update(bbox="1 2 3 4"), "annotation", 100, "four numbers"),
    "no box": (lambda w: first(w).pop("bbox"), "annotation", 100, "four numbers"),
    "huge area": (lambda w: first(w).update(area=1e39), "annotation", 100, "area must be a number of pixels, at most"),
    "area": (lambda w: first(w).update(area="12"), "annotation", 100, "area must be"),
    "crowd": (lambda w: first(w).update(iscrowd=2), "annotation", 100, "iscrowd must be 0 or 1"),
    "category": (lambda w: first(w).update(category_id=4), "annotation", 100, "category_id must be .*got 4"),
    "category type": (lambda w: first(w).update(category_id=[]), "annotation", 100, "category_id must be"),
    "no image": (lambda w: first(w).update(image_id=9), "annotation", 100, "image_id must be .*got 9"),
    "image type": (lambda w: first(w).update(image_id={}), "annotation", 100, "image_id must be"),
    "annotation ids": (lambda w: first(w).update(id=101), "annotation", 101, "another annotation has the same id"),
    "no annotation id": (lambda w: first(w).pop("id"), "annotation", None, "entry 1 of the annotations: expected an"),
    "no object": (lambda w: w["annotations"].insert(0, 5), "annotation", None, "entry 1 of the annotations: .*got 5"),
    "image ids": (lambda w: images(w)[0].update(id=11), "image", 11, "2 images have the same id"),
    "image id text": (lambda w: images(w)[0].update(id="10"), "image", None, "entry 1 of the images: .*integer id"),
    "missing": (lambda w: images(w)[0].update(file_name="none.png"), "image", 10, "does not exist"),
    "file type": (lambda w: images(w)[0].update(file_name=3), "image", 10, "file_name must be"),
    "same file": (lambda w: images(w)[1].update(file_name="0.png"), "image", 11, "image 10 has the same file"),
    "another size": (lambda w: images(w)[0].update(width=41), "image", 10, "has 40x30 pixels, upright, .* for 41x30"),
    "size type": (lambda w: images(w)[0].update(width="40"), "image", 10, "width must be"),
    "not an image": (lambda w: images(w)[0].update(file_name="../train.json"), "image", 10, "not an image"),
    "without boxes": (lambda w: [w["annotations"].pop(0) for _ in "12"], "image", 10, "no boxes that can be used"),
    "only crowd": (lambda w: [one.update(iscrowd=1) for one in w["annotations"][:2]], "image", 10, "only boxes around"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_listed_with_its_id_and_left_out(root: Path, name: str) -> None:
    change, kind, number, reason = FAULTS[name]
    whole = content(5)
    change(whole)
    rewrite(root, whole)
    with pytest.warns(DataWarning, match="left out"):
        data = opened(root)
    fault = data.faults[0]
    assert (fault.kind, fault.id) == (kind, number)
    with pytest.raises(DataError, match=f"{reason}(.|\n)*--skip-bad"):
        open_loader(data, PREPROCESSING, batch=2)
    with pytest.warns(DataWarning, match=r"left out \d images and \d annotations"):
        left = len(open_loader(data, PREPROCESSING, batch=2, skip_bad=True).data)
    assert left == (3 if name == "image ids" else 4 if kind == "image" else 5)
    boxes = sum(map(len, data.boxes))
    assert boxes == (2 * left if kind == "image" else 9 if name != "no object" else 10)


def test_boxes_that_exceed_the_image_by_a_pixel_are_clipped(root: Path) -> None:
    whole = content(5)
    first(whole).update(bbox=[-0.5, 2, 41.5, 28.75])
    rewrite(root, whole)
    data = opened(root)
    assert data.boxes[0][0].tolist() == [0, 2, 40, 30]
    assert not data.faults


def test_images_without_boxes_are_evaluated(root: Path) -> None:
    whole = content(2)
    whole["annotations"] = whole["annotations"][2:]
    rewrite(root, whole, "val")
    data = opened(root, "val")
    assert ([len(boxes) for boxes in data.boxes], data.faults) == ([0, 2], ())


def test_sizes_are_of_the_upright_image_and_may_be_missing(root: Path) -> None:
    whole = content(5)
    for image in images(whole):
        del image["width"], image["height"]
    images(whole)[0]["file_name"] = "0.jpg"
    rewrite(root, whole)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(0, 30, 40).save(root / "train" / "0.jpg", exif=turned)
    data = opened(root)
    assert data.sizes[:2] == [(30, 40), (36, 24)]
    assert data[0][0].size == (40, 30)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "it has no images"),
        ('{"images": []}', "it has no annotations"),
        ('{"images": {}, "annotations": [], "categories": []}', "images is {}"),
        ("[" * 100_000, "nested too deeply"),
        ({**content(1), "categories": []}, "there are none"),
        ({**content(1), "categories": [{"id": 1}, {"id": "2", "name": "x"}]}, "entry 1: .*; entry 2: expected"),
        ({**content(1), "categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}, "the id 1 occurs twice"),
        ({**content(1), "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]}, "have the name 'x'"),
        ({**content(1), "categories": ["x", None]}, "entry 1: expected an object with an integer id and a name"),
        ({**content(1), "images": []}, "no image that can be used|has no images"),
    ],
)
def test_a_file_that_is_not_of_this_form(root: Path, whole: Any, message: str) -> None:
    rewrite(root, whole)
    with pytest.raises(DataError, match=message) as raised:
        opened(root)
    assert "train.json" in str(raised.value)


def test_a_report_has_the_faults_and_counts_boxes(root: Path) -> None:
    whole = content(5)
    first(whole).update(bbox=[1, 2, 0, 0])
    rewrite(root, whole)
    picture(2, 9, 9).save(root / "train" / "3.png", format="bmp")
    with pytest.warns(DataWarning, match="1 images and 1 annotations"):
        data = opened(root)
    (root / "train" / "4.png").write_bytes((root / "train" / "4.png").read_bytes()[:300])
    report = check_data(data, workers=0)
    assert [fault.id for fault in report.faults] == [13, 100]
    assert [(count.name, count.images, count.bad, count.boxes) for count in report.classes] == [
        ("cat", 4, 1, 4),
        ("dog", 3, 1, 3),
    ]
    assert not report.ok


def test_an_image_that_was_replaced_after_opening_is_bad(root: Path) -> None:
    data = opened(root)
    picture(0, 30, 30).save(root / "train" / "0.png")
    with pytest.raises(DataError, match="30x30 pixels, and its annotations are for 40x30"):
        data[0]


def test_opening_both_splits_leaves_the_report_to_the_loader(root: Path) -> None:
    """A command that ends with an error has one line."""
    whole = content(5)
    first(whole).update(bbox=[1, 2, 0, 0])
    rewrite(root, whole)
    training = open_splits(f"coco:{root}")[0]
    assert [fault.id for fault in training.faults] == [100]


def test_the_public_function(sets: Path) -> None:
    assert isinstance(senet.open_data(f"coco:{sets}", "train"), BoxData)
