"""torchvision's data sets as they lie on the disk, of a few small pictures: one function a data set.

Each writes the set into a folder and returns, by split, the pictures with the names of their classes. An image file
keeps its set's suffix, but holds a PNG, which loses nothing.
"""

import bz2
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from tests.images import picture

Truth = dict[str, list[tuple[Image.Image, str]]]
LAYOUTS: dict[str, Callable[[Path, pytest.MonkeyPatch], Truth]] = {}
OPTIONS: dict[str, str] = {}
BOTH = ("train", "val")


def layout(name: str, options: str = "") -> Callable[[Any], Any]:
    """Of a data set by its name, with more after an underscore if it is opened in several ways."""

    def add(function: Any) -> Any:
        LAYOUTS[name], OPTIONS[name] = function, options
        return function

    return add


def save(path: Path, seed: int) -> Image.Image:
    """A picture in a file of any suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, "PPM" if path.suffix == ".ppm" else "PNG")
    return picture(seed)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def unchecked(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Only the real files have the sums that torchvision knows."""
    monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file())


def grey(seed: int, side: int, images: int = 3) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (images, side, side), dtype=np.uint8)


def named(pixels: Iterable[Any], names: Iterable[str]) -> list[tuple[Image.Image, str]]:
    return [(Image.fromarray(image), name) for image, name in zip(pixels, names, strict=True)]


def unsplit(pairs: list[tuple[Image.Image, str]]) -> Truth:
    """Of a set without splits, which is the same whichever is asked for."""
    return {"train": pairs, "val": pairs}


def class_folders(root: Path, folders: dict[str, str], suffix: str = ".jpg") -> list[tuple[Image.Image, str]]:
    """Two images in each folder; the class has another name than its folder."""
    return [
        (save(root / folder / f"{n}{suffix}", 10 * number + n), name)
        for number, (folder, name) in enumerate(folders.items())
        for n in range(2)
    ]


# Pixels in pickles, matrices and binary files


def cifar_files(root: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, labels: str, names: str, meta: str) -> Truth:
    folder, truth = root / kind.base_folder, {}

    def dump(file: str, value: object) -> list[str]:
        write(folder / file, pickle.dumps(value))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    for split, part, images in (("train", "train", 5), ("val", "test", 3)):
        pixels = np.random.default_rng(images).integers(0, 256, (images, 3, 32, 32), dtype=np.uint8)
        numbers = [(2 * n) % 3 for n in range(images)]
        entry = dump(part, {"data": pixels.reshape(images, -1), labels: numbers})
        monkeypatch.setattr(kind, f"{part}_list", [entry])
        truth[split] = named(pixels.transpose(0, 2, 3, 1), [["airplane", "bird", "cat"][n] for n in numbers])
    file, md5 = dump(meta, {names: ["airplane", "bird", "cat"]})
    monkeypatch.setattr(kind, "meta", {"filename": file, "key": names, "md5": md5})
    return truth


@layout("CIFAR10")
def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return cifar_files(root, monkeypatch, torchvision.datasets.CIFAR10, "labels", "label_names", "batches.meta")


@layout("CIFAR100")
def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return cifar_files(root, monkeypatch, torchvision.datasets.CIFAR100, "fine_labels", "fine_label_names", "meta")


def idx_files(folder: Path, files: dict[str, tuple[str, str]], numbers: list[int], names: list[str]) -> Truth:
    truth = {}
    for seed, (split, (images, labels)) in enumerate(files.items()):
        pixels = grey(seed, 28)
        write(folder / images, struct.pack(">4i", 2051, 3, 28, 28) + pixels.tobytes())
        write(folder / labels, struct.pack(">2i", 2049, 3) + bytes(numbers))
        truth[split] = named(pixels, names)
    return truth


IDX = {s: (f"{p}-images-idx3-ubyte", f"{p}-labels-idx1-ubyte") for s, p in (("train", "train"), ("val", "t10k"))}


@layout("MNIST")
def mnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return idx_files(root / "MNIST" / "raw", IDX, [3, 0, 9], ["3 - three", "0 - zero", "9 - nine"])


@layout("FashionMNIST")
def fashionmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return idx_files(root / "FashionMNIST" / "raw", IDX, [0, 9, 5], ["T-shirt/top", "Ankle boot", "Sandal"])


@layout("KMNIST")
def kmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return idx_files(root / "KMNIST" / "raw", IDX, [0, 9, 1], ["o", "wo", "ki"])


@layout("EMNIST", "&split=letters")
def emnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    files = {
        split: tuple(f"emnist-letters-{part}-{what}-ubyte" for what in ("images-idx3", "labels-idx1"))
        for split, part in (("train", "train"), ("val", "test"))
    }
    return idx_files(root / "EMNIST" / "raw", files, [1, 26, 2], ["a", "z", "b"])


@layout("QMNIST")
def qmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    truth = {}
    for seed, (split, part) in enumerate((("train", "train"), ("val", "test"))):
        pixels, rows = grey(seed, 28), np.arange(24, dtype=">i4").reshape(3, 8)
        rows[:, 0] = [4, 0, 7]
        write(
            root / "QMNIST" / "raw" / f"qmnist-{part}-images-idx3-ubyte",
            struct.pack(">4i", 2051, 3, 28, 28) + pixels.tobytes(),
        )
        write(
            root / "QMNIST" / "raw" / f"qmnist-{part}-labels-idx2-int",
            struct.pack(">3i", 0x0C02, 3, 8) + rows.tobytes(),
        )
        truth[split] = named(pixels, ["4 - four", "0 - zero", "7 - seven"])
    return truth


@layout("SVHN")
def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "svhn")
    truth = {}
    for seed, (split, part) in enumerate((("train", "train"), ("val", "test"))):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": np.array([[10], [3], [9]], dtype=np.uint8)})
        truth[split] = named(pixels.transpose(3, 0, 1, 2), ["0", "3", "9"])  # 10 is the digit 0 there
    return truth


@layout("USPS")
def usps(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    truth = {}
    for seed, (split, file) in enumerate((("train", "usps.bz2"), ("val", "usps.t.bz2"))):
        black = np.random.default_rng(seed).integers(0, 2, (3, 16, 16))  # -1 or 1 in the file
        lines = (
            f"{label + 1} " + " ".join(f"{i + 1}:{2 * v - 1}" for i, v in enumerate(image.ravel()))
            for label, image in zip((0, 4, 9), black, strict=True)
        )
        write(root / file, bz2.compress("\n".join(lines).encode()))
        truth[split] = named((black * 255).astype(np.uint8), ["0", "4", "9"])
    return truth


@layout("SEMEION")
def semeion(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "semeion")
    black = np.random.default_rng(0).integers(0, 2, (3, 256))
    rows = np.hstack([black, np.eye(10, dtype=int)[[2, 0, 9]]])
    write(root / "semeion.data", "\n".join(" ".join(map(str, row)) for row in rows))
    return unsplit(named((black * 255).astype(np.uint8).reshape(3, 16, 16), ["2", "0", "9"]))


@layout("STL10")
def stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "stl10")
    truth, names = {}, ["airplane", "bird", "car"]
    for seed, (split, part) in enumerate((("train", "train"), ("val", "test"))):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)  # columns first
        write(root / "stl10_binary" / f"{part}_X.bin", pixels.tobytes())
        write(root / "stl10_binary" / f"{part}_y.bin", bytes([3, 1, 2]))
        truth[split] = named(pixels.transpose(0, 3, 2, 1), ["car", "airplane", "bird"])
    write(root / "stl10_binary" / "unlabeled_X.bin", b"")
    write(root / "stl10_binary" / "class_names.txt", "\n".join(names))
    return truth


@layout("FER2013")
def fer2013(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "fer2013")
    pixels, usage = grey(0, 48, 4), ["Training", "PublicTest", "Training", "PrivateTest"]
    rows = [
        f"{n},{' '.join(map(str, image.ravel()))},{use}"
        for n, (image, use) in enumerate(zip(pixels, usage, strict=True))
    ]
    write(root / "fer2013" / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *rows]))
    return {"train": named(pixels[::2], ["0", "2"]), "val": named(pixels[1::2], ["1", "3"])}


# Images in class folders


@layout("ImageFolder")
def imagefolder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return unsplit(class_folders(root, {"a": "a", "b": "b"}, ".png"))


@layout("EuroSAT")
def eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    return unsplit(class_folders(root / "eurosat" / "2750", {"Forest": "Forest", "River": "River"}))


@layout("Country211")
def country211(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder = root / "country211"
    class_folders(folder / "test", {"ZZ": "ZZ"})
    return {s: class_folders(folder / p, {"AD": "AD", s: s}) for s, p in (("train", "train"), ("val", "valid"))}


@layout("ImageNet")
def imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    names = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}
    torch.save((names, ["n01440764"]), root / "meta.bin")
    folders = {wnid: ", ".join(synonyms) for wnid, synonyms in names.items()}
    return {split: class_folders(root / split, folders, ".JPEG") for split in BOTH}


@layout("Imagenette", "&size=160px")
def imagenette(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folders = {"n01440764": "tench, Tinca tinca", "n03888257": "parachute, chute"}
    return {split: class_folders(root / "imagenette2-160" / split, folders, ".JPEG") for split in BOTH}


@layout("RenderedSST2")
def renderedsst2(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folders = {"negative": "negative", "positive": "positive"}
    parts = (("train", "train"), ("val", "valid"))
    return {split: class_folders(root / "rendered-sst2" / part, folders, ".png") for split, part in parts}


@layout("Caltech101")
def caltech101(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder = root / "caltech101" / "101_ObjectCategories"
    save(folder / "BACKGROUND_Google" / "image_0001.jpg", 99)
    names = ("accordion", "accordion", "wrench")
    return unsplit([(save(folder / name / f"image_{[1, 2, 1][n]:04}.jpg", n), name) for n, name in enumerate(names)])


@layout("Caltech256")
def caltech256(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder = root / "caltech256" / "256_ObjectCategories"
    names = ("001.ak47", "001.ak47", "002.american-flag")
    return unsplit(
        [(save(folder / name / f"{name[:3]}_{[1, 2, 1][n]:04}.jpg", n), name) for n, name in enumerate(names)],
    )


@layout("Omniglot")
def omniglot(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "omniglot")
    folder = root / "omniglot-py" / "images_background"
    write(folder.with_suffix(".zip"), "")
    names = [f"{alphabet}{os.sep}character{n:02}" for alphabet in ("Greek", "Latin") for n in (1, 2)]
    return unsplit([(save(folder / name / f"{n:04}_01.png", n), name) for n, name in enumerate(names)])


@layout("INaturalist")
def inaturalist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    names = [
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
        "00001_Plantae_Tracheophyta_Liliopsida_Poales_Poaceae_Zea_mays",
    ]
    folders = {name: name for name in names}
    parts = (("train", "2021_train"), ("val", "2021_valid"))
    return {split: class_folders(root / part, folders) for split, part in parts}


@layout("INaturalist_kingdom", "&version=2021_valid&target_type=kingdom")
def inaturalist_kingdom(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folders = {f"0000{n}_{name}_b_c_d_e_f_g": name for n, name in enumerate(("Animalia", "Plantae"))}
    return unsplit(class_folders(root / "2021_valid", folders))


@layout("INaturalist_2018", "&version=2018")
def inaturalist_2018(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    names = [os.path.join("Aves", "0"), os.path.join("Aves", "2"), os.path.join("Fungi", "1")]
    return unsplit(class_folders(root / "2018", {name: name for name in names}))


# Images next to lists


@layout("CLEVRClassification")
def clevrclassification(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "clevr" / "CLEVR_v1.0", {}
    for split in BOTH:
        files = {f"CLEVR_{split}_{n:06}.png": n + 3 for n in range(3)}
        scenes = [{"image_filename": file, "objects": [{}] * count} for file, count in files.items()]
        write(folder / "scenes" / f"CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))
        truth[split] = [(save(folder / "images" / split / file, n), str(n)) for file, n in files.items()]
    save(folder / "images" / "test" / "CLEVR_test_000000.png", 0)
    return truth


@layout("DTD", "&partition=2")
def dtd(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "dtd" / "dtd", {}
    for number, split in enumerate(BOTH):
        files = [f"{name}/{name}_{number}.jpg" for name in ("woven", "banded")]
        write(folder / "labels" / f"{split}2.txt", "\n".join(files))
        truth[split] = [
            (save(folder / "images" / file, 2 * number + n), file.split("/")[0]) for n, file in enumerate(files)
        ]
    return truth


@layout("FGVCAircraft", "&annotation_level=family")
def fgvcaircraft(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "fgvc-aircraft-2013b" / "data", {}
    write(folder / "families.txt", "A300\nBoeing 707\nCessna 172\n")
    for number, split in enumerate(BOTH):
        files = {f"{number}{n}": name for n, name in enumerate(("Boeing 707", "A300"))}
        write(folder / f"images_family_{split}.txt", "\n".join(f"{file} {name}" for file, name in files.items()))
        truth[split] = [(save(folder / "images" / f"{file}.jpg", int(file)), name) for file, name in files.items()]
    return truth


@layout("Flowers102")
def flowers102(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "flowers102")
    folder = root / "flowers-102"
    images = [save(folder / "jpg" / f"image_{n:05}.jpg", n) for n in range(1, 7)]
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 102, 102, 1, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[1, 4]], "valid": [[2, 3]], "tstid": [[5, 6]]})
    names = ["pink primrose", "hard-leaved pocket orchid", "blackberry lily", "blackberry lily"]
    pairs = list(zip(images[:4], names, strict=True))
    return {"train": [pairs[0], pairs[3]], "val": pairs[1:3]}


@layout("Food101")
def food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "food-101", {}
    for number, (split, part) in enumerate((("train", "train"), ("val", "test"))):
        files = {name: [f"{name}/{number}{n}" for n in range(2)] for name in ("waffles", "bibimbap")}
        write(folder / "meta" / f"{part}.json", json.dumps(files))
        truth[split] = [
            (save(folder / "images" / f"{file}.jpg", 10 * number + n), name)
            for n, (name, file) in enumerate((name, file) for name in files for file in files[name])
        ]
    return truth


@layout("GTSRB")
def gtsrb(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder = root / "gtsrb"
    training = class_folders(folder / "GTSRB" / "Training", {"00000": "0", "00001": "1"}, ".ppm")
    test = [(save(folder / "GTSRB" / "Final_Test" / "Images" / f"{n}.ppm", n), str(n)) for n in (1, 0)]
    write(folder / "GT-final_test.csv", "Filename;Width;ClassId\n1.ppm;10;1\n0.ppm;10;0\n")
    return {"train": training, "val": test}


@layout("LFWPeople")
def lfwpeople(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "lfw")
    folder = root / "lfw-py"
    for file in ("lfw-funneled.tgz", "lfw-names.txt"):
        write(folder / file, "Ada_Byron\t2\nKurt_Goedel\t1\nMax_Noether\t1\n")
    write(folder / "peopleDevTrain.txt", "2\nAda_Byron\t2\nMax_Noether\t1\n")
    write(folder / "peopleDevTest.txt", "1\nKurt_Goedel\t1\n")
    people = [("Ada_Byron", 1), ("Ada_Byron", 2), ("Max_Noether", 1), ("Kurt_Goedel", 1)]
    pairs = [
        (save(folder / "lfw_funneled" / who / f"{who}_{n:04}.jpg", seed), who) for seed, (who, n) in enumerate(people)
    ]
    return {"train": pairs[:3], "val": pairs[3:]}


@layout("OxfordIIITPet")
def oxfordiiitpet(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "oxford-iiit-pet", {}
    for number, (split, part) in enumerate((("train", "trainval"), ("val", "test"))):
        files = {f"Abyssinian_{number}": "1 1 1", f"american_bulldog_{number}": "2 2 1"}
        write(folder / "annotations" / f"{part}.txt", "\n".join(f"{file} {rest}" for file, rest in files.items()))
        names = ("Abyssinian", "American Bulldog")
        truth[split] = [
            (save(folder / "images" / f"{file}.jpg", 2 * number + n), names[n]) for n, file in enumerate(files)
        ]
    return truth


@layout("OxfordIIITPet_binary", "&target_types=binary-category")
def oxfordiiitpet_binary(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    pairs = oxfordiiitpet(root, monkeypatch)
    return {s: [(image, "Cat" if name == "Abyssinian" else "Dog") for image, name in pairs[s]] for s in BOTH}


@layout("Places365", "&small=true")
def places365(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    unchecked(monkeypatch, "places365")
    write(root / "categories_places365.txt", "/a/airfield 0\n/b/balcony/exterior 1\n")
    files = ["/a/airfield/1.jpg", "/b/balcony/exterior/1.jpg"]
    write(root / "places365_train_standard.txt", "\n".join(f"{file} {n}" for n, file in enumerate(files)))
    write(root / "places365_val.txt", "Places365_val_1.jpg 1\n")
    write(root / "places365_test.txt", "Places365_test_1.jpg\n")
    names = ["airfield", "balcony/exterior"]
    training = [(save(root / f"data_256_standard{file}", n), names[n]) for n, file in enumerate(files)]
    return {
        "train": training,
        "val": [(save(root / "val_256" / "Places365_val_1.jpg", 7), names[1])],
    }


@layout("StanfordCars")
def stanfordcars(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, truth = root / "stanford_cars", {}
    names = ["AM General Hummer", "Acura RL"]
    write(folder / "devkit" / "x", "")
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    files = {"train": folder / "devkit" / "cars_train_annos.mat", "val": folder / "cars_test_annos_withlabels.mat"}
    for number, split in enumerate(BOTH):
        rows = np.zeros(2, dtype=[("fname", object), ("class", object)])
        rows["fname"], rows["class"] = ["0.jpg", "1.jpg"], [np.uint8(2), np.uint8(1)]
        savemat(files[split], {"annotations": rows})
        part = folder / f"cars_{'train' if split == 'train' else 'test'}"
        truth[split] = [(save(part / f"{n}.jpg", 2 * number + n), names[1 - n]) for n in range(2)]
    return truth


@layout("SUN397")
def sun397(root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    folder, names = root / "SUN397", ["abbey", "airplane_cabin", "apse/indoor"]
    write(folder / "ClassName.txt", "\n".join(f"/a/{name}" for name in names))
    return unsplit([(save(folder / "a" / name / f"sun_{n}.jpg", n), name) for n, name in enumerate(names)])
