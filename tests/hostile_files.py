"""Files of every kind that senet reads, damaged in seeded ways: truncated, bits flipped, values replaced.

    valid = valid_files(tmp_path / "valid")
    for file in hostile_files(tmp_path / "hostile", valid, seed=0):
        file.kind, file.how, file.path        # "model", "in_channels=1000000000", ...
        file.invalid                          # True: must be refused; False: may turn out to be readable
        command(file, valid)                  # arguments of `senet` that read it

Only regular files are made, none larger than a few megabytes.
"""

import copy
import io
import json
import math
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import features
from safetensors.numpy import save as serialize

import senet
from senet.gates.recording.arrays_file import checksum, read_arrays
from senet.study.plan.make_plan import make_plan
from senet.study.plan.plan_file import save_plan
from senet.study.plan.study import Study, StudyArm
from tests.gates.recorded import some_batches
from tests.images import pack, picture, write_classes
from tests.training.runs import run
from tests.weights.caffe_files import net_parameter

__all__ = ["HostileFile", "command", "hostile_files", "valid_files"]

CLASSES = ("cat", "dog", "emu")
NESTED = 20_000


@dataclass(frozen=True)
class HostileFile:
    """A damaged file, or a folder with one.

    Attributes:
        kind: key of `valid_files`.
        how: what was done to it.
        path: of the file; of a folder for the kinds "shards", "index", "run", "checkpoint" and "plan".
        invalid: certainly not readable; otherwise the damage may be where nobody looks.
    """

    kind: str
    how: str
    path: Path
    invalid: bool


def command(file: HostileFile, valid: dict[str, Path]) -> list[str]:
    """Arguments of `senet` that read the file; outputs go into a folder `out` next to it."""
    model, path, out = str(valid["model"]), str(file.path), str(file.path.parent / "out")
    train = ["train", "se_resnet20", "--data", "digits", "--output", out]
    commands = {
        "image": ["predict", model, path],
        "tar": ["evaluate", model, "--data", path],
        "shards": ["evaluate", model, "--data", f"wds:{path}/train-000000.tar?classes={valid['classes']}"],
        "index": ["evaluate", model, "--data", f"wds:{path}"],
        "model": ["evaluate", path, "--data", str(valid["tar"])],
        "weights": ["evaluate", path, "--network", "se_resnet20", "--data", str(valid["tar"])],
        "caffe": ["evaluate", path, "--network", "se_resnet50", "--data", str(valid["tar"])],
        "checkpoint": [*train[:-1], path, "--recipe", f"{path}/recipe.toml", "--resume"],
        "recipe": [*train, "--recipe", path],
        "study": ["study", path, "--data", "digits", "--recipe", "digits", "--output", out, "--dry-run"],
        "plan": ["study", "report", path],
        "run": ["compare", path],
        "report": ["paper", path],
        "gates": ["gates", path, "--output", out],
        "classes": ["evaluate", model, "--data", f"wds:{valid['shards']}/train-000000.tar?classes={path}"],
    }
    return commands[file.kind]


def valid_files(folder: Path) -> dict[str, Path]:
    """One good file, or folder, of every kind; a minute's work for no machine."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made = {"image": folder / "image.png", "model": folder / "model.safetensors", "weights": folder / "weights.pth"}
    picture(0, 40, 30).save(made["image"])
    write_classes(folder / "images", dict.fromkeys(CLASSES, 2))
    made["tar"] = pack(folder / "images")
    model: Any = senet.create_model("se_resnet20", num_classes=len(CLASSES))
    model.pretrained_cfg["label_names"] = list(CLASSES)
    senet.save(model, made["model"])
    torch.save(model.state_dict(), made["weights"])
    made["gates"] = folder / "gates.safetensors"
    senet.record_gates(model, some_batches((2, 1))).save(made["gates"])
    made["shards"] = made["index"] = folder / "shards"
    _write_shards(folder / "images", made["shards"])
    made["caffe"] = folder / "weights.caffemodel"
    made["caffe"].write_bytes(_caffemodel())
    made["classes"] = folder / "classes.txt"
    made["classes"].write_text("\n".join(CLASSES) + "\n")
    made["run"] = made["checkpoint"] = folder / "run"
    run(made["run"], "epochs=1", "warmup=0.5")
    made["recipe"] = folder / "recipe.toml"
    shutil.copy(made["run"] / "recipe.toml", made["recipe"])
    made["study"] = folder / "study.toml"
    made["study"].write_text('title = "t"\n[grid]\nnetwork = ["resnet20", "se_resnet20"]\nreduction = [4, 16]\n')
    made["plan"] = folder / "study"
    study = Study("own", "title", "", (StudyArm("a", "a", "resnet20"), StudyArm("b", "b", "se_resnet20")), "")
    save_plan(make_plan(study, data="digits", recipe="digits", seeds=1, folder=made["plan"]))
    made["report"] = folder / "report.json"
    made["report"].write_text(json.dumps(_report()))
    return made


def hostile_files(folder: Path, valid: dict[str, Path], seed: int = 0, each: int = 4) -> Iterator[HostileFile]:
    """Damaged files of every kind, made one by one.

    Args:
        folder: where they are written.
        valid: of `valid_files`.
        seed: of what is random.
        each: files of each kind and each kind of random damage; those that are not random are always all there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(seed)
    for number, (kind, how, content, name, invalid) in enumerate(_all(valid, random_, each)):
        here = folder / f"{number:04d}"
        here.mkdir()
        source = valid[kind]
        if source.is_dir():
            shutil.copytree(source, here / "folder")
            (here / "folder" / name).write_bytes(content)
            yield HostileFile(kind, f"{name}: {how}", here / "folder", invalid)
        else:
            path = here / (name or source.name)
            path.write_bytes(content)
            yield HostileFile(kind, how, path, invalid)


_Made = tuple[str, str, bytes, str, bool]


def _all(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    yield from _images(random_, each)
    yield from _tars(valid, random_, each)
    yield from _models(valid, random_, each)
    yield from _weights(valid, random_, each)
    yield from _texts(valid, random_, each)
    yield from _folders(valid, random_, each)
    for how, content in _damaged(valid["caffe"].read_bytes(), random_, each):
        yield "caffe", how, content, "", False
    yield "caffe", "two scale factors in a batch norm", _caffemodel(factors=2), "", True
    yield "caffe", "dimensions below 0", _caffemodel(shape=(-1, -1)), "", True
    yield "caffe", "more values than its shape", _caffemodel(shape=(2, 2)), "", True
    yield "caffe", "dimensions of 1e18", _caffemodel(shape=(10**18, 10**18)), "", True
    for how, content in _damaged(valid["gates"].read_bytes(), random_, each):
        yield "gates", how, content, "", how.startswith(("cut", "empty"))
    yield from _gates(valid["gates"], random_, each)


def _damaged(content: bytes, random_: random.Random, each: int) -> Iterator[tuple[str, bytes]]:
    """Empty, truncated, bits flipped, bytes overwritten, something else."""
    yield "empty", b""
    yield "cut after a byte", content[:1]
    for _ in range(each):
        end = random_.randrange(2, len(content))
        yield f"cut after {end} bytes", content[:end]
    for _ in range(each):
        flipped = bytearray(content)
        places = [random_.randrange(min(len(content), 4000 if _ % 2 else len(content))) for _ in range(1 + 3 * (_ % 2))]
        for place in places:
            flipped[place] ^= 1 << random_.randrange(8)
        yield f"bits flipped in bytes {places}", bytes(flipped)
    for _ in range(max(1, each // 2)):
        start = random_.randrange(len(content))
        end = min(len(content), start + random_.randrange(1, 200))
        yield f"bytes {start} to {end} overwritten", content[:start] + random_.randbytes(end - start) + content[end:]
    yield "noise", random_.randbytes(5000)


# Images.


def _encoded(kind: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    file = io.BytesIO()
    picture(1, *size).save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int, rows: bytes = b"\0" * 100) -> bytes:
    """A PNG of grey pixels whose size is whatever its header says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _images(random_: random.Random, each: int) -> Iterator[_Made]:
    kinds = [kind for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF") if kind]
    kinds += [kind for kind in ("WEBP", "AVIF") if features.check(kind.lower())]
    for kind in kinds:
        name = f"image.{kind.lower()}"
        for how, content in _damaged(_encoded(kind), random_, each):
            yield "image", f"{kind} {how}", content, name, how in ("empty", "noise", "cut after a byte")
    for width, height in ((1, 100_000), (100_000, 1), (60_000, 1)):
        rows = (b"\0" + b"\x80" * width) * height
        yield (
            "image",
            f"a PNG of {width}x{height}",
            _png(width, height, rows),
            "image.png",
            False,  # which depends on the size that it is resized to
        )
    yield "image", "a PNG of 50,000x50,000", _png(50_000, 50_000), "image.png", True
    yield "image", "a PNG of 2**31-1 squared", _png(2**31 - 1, 2**31 - 1), "image.png", True
    yield "image", "a PNG of 0x0", _png(0, 0), "image.png", True
    yield "image", "text", b"no image", "image.jpg", True
    spoilt = bytearray(_encoded("PNG"))
    spoilt[spoilt.index(b"IDAT") + 20] ^= 0x10
    yield "image", "a PNG with a bit flipped in its compressed pixels", bytes(spoilt), "image.png", True


# Archives.


def _tar_with(name: str, content: bytes, **headers: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, class_ in enumerate(CLASSES):
            member = tarfile.TarInfo(f"{class_}/{number}.png" if not number else f"{class_}/{name}")
            member.size, member.pax_headers = len(content), headers if number else {}
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _tars(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    shard = (valid["shards"] / "train-000000.tar").read_bytes()
    for kind, good, name in (("tar", valid["tar"].read_bytes(), "images.tar"), ("shards", shard, "train-000000.tar")):
        for how, content in _damaged(good, random_, each):
            yield kind, how, content, name, how in ("empty", "noise", "cut after a byte")
    image = _encoded("PNG")
    for size in ("99999999999999999999", "-1", "1e9", "nan", "1" * 5000):
        shown = size if len(size) < 30 else f"{len(size)} digits"
        yield "tar", f"a pax size of {shown}", _tar_with("x.png", image, size=size), "images.tar", True
    for headers in ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 20},):
        yield "tar", "a sparse member of 1e20 bytes", _tar_with("x.png", image, **headers), "images.tar", True
    octal = bytearray(_tar_with("x.png", image))
    octal[124:136] = b"\x80" + b"\xff" * 11  # a size in base 256
    octal[148:156] = b"%06o\0 " % (sum(octal[:148]) + 8 * 32 + sum(octal[156:512]))
    yield "tar", "a size of 2**88", bytes(octal), "images.tar", True


# Model files.


def _values() -> list[Any]:
    """Values that no field is to have."""
    nested: Any = []
    for _ in range(500):
        nested = [nested]
    return [None, math.nan, math.inf, -1, 10**9, 2**62, 10**30, 1e300, "x", "x" * 10_000, [], {}, [None], nested, True]


def _places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of every value of a JSON tree, of containers too."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from _places(value, (*above, key))


def _replaced(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    at = tree
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return tree


def _mutated(tree: Any, random_: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    """Trees with one value replaced or missing each."""
    places = list(_places(tree))
    for _ in range(count):
        place = random_.choice(places)
        name = ".".join(map(str, place))
        if random_.random() < 0.15 and isinstance(place[-1], str):
            smaller = copy.deepcopy(tree)
            at = smaller
            for key in place[:-1]:
                at = at[key]
            del at[place[-1]]
            yield f"without {name}", smaller
        else:
            value = random_.choice(_values())
            yield f"{name}={str(value)[:30]}", _replaced(tree, place, value)


def _dumps(tree: Any) -> str:
    """JSON of a tree that may hold numbers of any size."""
    return json.dumps(tree)


def with_description(content: bytes, text: str | None) -> bytes:
    """A safetensors file with another description."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {} if text is None else {"senet": text}
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + content[8 + length :]


def _models(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    content = valid["model"].read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length])["__metadata__"]["senet"]
    description = json.loads(text)
    for how, damaged in _damaged(content, random_, each):
        yield "model", how, damaged, "", how.startswith(("cut", "empty", "noise"))
    for size in (2**63, 2**40, 10**8, 1):
        yield "model", f"a header of {size} bytes", size.to_bytes(8, "little") + content[8:], "", True
    for how, place, value in (
        ("in_channels=1e9", ("network", "in_channels"), 10**9),
        ("num_classes=1e9", ("network", "num_classes"), 10**9),
        ("num_classes=2**62", ("network", "num_classes"), 2**62),
        ("in_channels=1e9 as a float", ("network", "in_channels"), 1e9),
        ("channels=1e9", ("se", 0, "options", "channels"), 10**9),
        ("hidden_channels=1e9", ("se", 0, "options", "hidden_channels"), 10**9),
        ("hidden_channels=0", ("se", 0, "options", "hidden_channels"), 0),
        ("mean=null", ("pretrained_cfg", "mean"), None),
        ("mean=[null]", ("pretrained_cfg", "mean"), [None, None, None]),
        ("std=[0, 0, 0]", ("pretrained_cfg", "std"), [0, 0, 0]),
        ("mean=[NaN]", ("pretrained_cfg", "mean"), [math.nan] * 3),
        ("crop_pct=null", ("pretrained_cfg", "crop_pct"), None),
        ("input_size=1e9", ("pretrained_cfg", "input_size"), [3, 10**9, 10**9]),
        ("interpolation=x", ("pretrained_cfg", "interpolation"), "x"),
        ("format=Infinity", ("format",), math.inf),
        ("format=NaN", ("format",), math.nan),
        ("format=-1", ("format",), -1),
        ("a network of another library", ("network", "name"), "timm/../../etc/passwd"),
    ):
        yield "model", how, with_description(content, _dumps(_replaced(description, place, value))), "", True
    for how, other in (
        ("nested", "[" * NESTED),
        ("nested in a key", text[:-1] + ', "x": ' + "[" * NESTED + "]" * NESTED + "}"),
        ("5,000 digits", text.replace('"format": 1', f'"format": {"1" * 5000}')),
        ("no object", "3"),
        ("null", "null"),
        ("no JSON", "{"),
    ):
        yield "model", f"description {how}", with_description(content, other), "", True
    for how, tree in _mutated(description, random_, 4 * each):
        yield "model", how, with_description(content, _dumps(tree)), "", False


# Weights of others, and checkpoints.


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


class _Runs:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a file was run')",))


def _weights(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    content = valid["weights"].read_bytes()
    for how, damaged in _damaged(content, random_, each):
        yield "weights", how, damaged, "", how.startswith(("cut", "empty", "noise"))
    state: Any = torch.load(valid["weights"], weights_only=True)
    within: dict[str, Any] = {}
    within["state_dict"] = within
    circle: dict[str, Any] = {"model": {"net": {}}}
    circle["model"]["net"]["state_dict"] = circle
    deep: Any = state
    for _ in range(300):
        deep = {"state_dict": deep}
    for how, value, invalid in (
        ("a dict that contains itself", within, True),
        ("a circle of dicts", circle, True),
        ("300 wrappers", deep, False),
        ("no dict", [1, 2], True),
        ("an empty dict", {}, True),
        ("numbers for tensors", dict.fromkeys(state, 1.0), True),
        ("names that are numbers", dict(enumerate(state.values())), True),
        ("tensors of no dimension", {key: torch.zeros(()) for key in state}, True),
        ("tensors of another shape", {key: torch.zeros(1, 2, 3) for key in state}, True),
        ("tensors without values", {key: torch.zeros(0) for key in state}, True),
        ("complex numbers", {key: tensor.to(torch.complex64) for key, tensor in state.items()}, True),
        ("tensors without memory", {key: tensor.to("meta") for key, tensor in state.items()}, True),
        ("an expanded tensor of 1e15", {"fc.weight": torch.zeros(1).expand(10**15)}, True),
        ("code", {"state_dict": _Runs()}, True),
    ):
        yield "weights", how, _saved(value), "", invalid


def _folders(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    checkpoint = (valid["run"] / "checkpoint.pt").read_bytes()
    for how, damaged in _damaged(checkpoint, random_, each):
        yield "checkpoint", how, damaged, "checkpoint.pt", how.startswith(("cut", "empty", "noise"))
    found: dict[str, Any] = torch.load(valid["run"] / "checkpoint.pt", weights_only=True)
    for key in ("format", "identity", "state"):
        yield "checkpoint", f"without {key}", _saved(_without(found, key)), "checkpoint.pt", True
    for key in found["state"]:
        changed = found | {"state": _without(found["state"], key)}
        needed = key in ("epochs", "skipped", "step")  # the rest is looked at where training resumes
        yield "checkpoint", f"without state.{key}", _saved(changed), "checkpoint.pt", needed
        changed = found | {"state": found["state"] | {key: None}}
        yield "checkpoint", f"state.{key}=None", _saved(changed), "checkpoint.pt", False
    for value in (math.inf, "x", None):
        changed = found | {"format": value}
        yield "checkpoint", f"format={value}", _saved(changed), "checkpoint.pt", True
    for kind, name in (
        ("index", "train.index.json"),
        ("run", "run.json"),
        ("run", "metrics.jsonl"),
        ("plan", "study.json"),
        ("plan", "recipe.toml"),
        ("run", "recipe.toml"),
    ):
        content = (valid[kind] / name).read_bytes()
        strict = name not in ("metrics.jsonl", "recipe.toml")
        for how, damaged in _damaged(content, random_, max(1, each // 2)):
            yield kind, how, damaged, name, strict and how.startswith(("empty", "noise"))
        if name.endswith(("json", "jsonl")):
            yield kind, "nested", b"[" * NESTED, name, True
            yield kind, "UTF-16", content.decode().encode("utf-16"), name, True
            for how, tree in _mutated(json.loads(content), random_, 2 * each):
                yield kind, how, json.dumps(tree).encode(), name, False
    table = (valid["index"] / "train.rows.npy").read_bytes()
    for how, damaged in _damaged(table, random_, max(1, each // 2)):
        yield "index", how, damaged, "train.rows.npy", True
    yield from _indexes(valid["index"])


def _indexes(folder: Path) -> Iterator[_Made]:
    """Indexes whose checksum of the rows is right: a stranger can compute it."""
    index = json.loads((folder / "train.index.json").read_text())
    for key, value in (
        ("images", 10**12),
        ("images", -1),
        ("bytes", 10**30),
        ("file", "../../etc/passwd"),
        ("sha256", 5),
    ):
        changed = copy.deepcopy(index)
        changed["shards"][0][key] = value
        yield "index", f"shards.0.{key}={value}", json.dumps(changed).encode(), "train.index.json", key != "sha256"


def _without(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != key}


def _gates(path: Path, random_: random.Random, each: int) -> Iterator[_Made]:
    """Recordings with damaged descriptions, of the present format with a valid checksum, and of senet 0.1."""
    about, arrays = read_arrays(path, 2)
    trees = list(_mutated(about, random_, 2 * each))
    trees += [(f"without {key}", _without(about, key)) for key in about]
    texts = [(how, json.dumps(tree)) for how, tree in trees] + [("nested", "[" * NESTED)]
    for how, text in texts:
        yield "gates", how, serialize(arrays | {"sha256": checksum(text, arrays)}, {"about": text}), "", how == "nested"
        file = io.BytesIO()
        np.savez(file, **arrays | {"about": np.frombuffer(text.encode(), np.uint8)})
        yield "gates", f"{how}, as of senet 0.1", file.getvalue(), "", how == "nested"


# Text.


def _texts(valid: dict[str, Path], random_: random.Random, each: int) -> Iterator[_Made]:
    recipe, study = valid["recipe"].read_text(), valid["study"].read_text()
    for kind, text in (("recipe", recipe), ("study", study)):
        for how, damaged in _damaged(text.encode(), random_, max(1, each // 2)):
            yield kind, how, damaged, "", how in ("empty", "noise")
        for how, broken in (
            ("UTF-16", text.encode("utf-16")),
            ("Latin-1", "# ä\n".encode("latin-1") + text.encode()),
            ("a null byte", b"\0" + text.encode()),
            ("nested arrays", b"x = " + b"[" * NESTED + b"]" * NESTED),
            ("nested tables", b"x = " + b"{a = " * NESTED + b"1" + b"}" * NESTED),
            ("dotted keys", b"a." * NESTED + b"b = 1"),
            ("5,000 digits", b"title = " + b"1" * 5000),
            ("5,000 hexadecimal digits", b"title = 0x" + b"f" * 5000),
        ):
            yield kind, how, broken, "", True
    for key, value in (
        *(("epochs", v) for v in ("1e12", "1000000000000", "inf", "nan", "-1", "[]", "'x'", "true", "1" * 400)),
        *(("batch", v) for v in ("1000000000000", "0", "nan")),
        *(("resize", v) for v in ("1000000", "0", "-5", "99999999999")),
        *(("crop_size", v) for v in ("1000000", "0")),
        *(("mean", v) for v in ("[nan, nan, nan]", "[inf, 0, 0]", "[]", "[1]", "'x'")),
        *(("std", v) for v in ("[0, 0, 0]", "[1e-45, 1e-45, 1e-45]", "[nan, 1, 1]")),
        *(("workers", v) for v in ("1000000", "-2")),
        ("padding", "1000000"),
        ("lr", "inf"),
        ("memory", "1e300"),
        ("milestones", "[-1]"),
        ("accumulate", "1000000"),
    ):
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in recipe.split("\n")]
        yield "recipe", f"{key} = {value[:20]}", "\n".join(lines).encode(), "", key not in ("memory", "std")
    grid = "\n".join(f"{key} = [{', '.join(map(str, range(1, 200)))}]" for key in ("reduction", "epochs", "batch"))
    for how, text in (
        ("a grid of millions of arms", f"[grid]\nnetwork = ['se_resnet20']\n{grid}\n"),
        ("a grid of 1e9 values", "[grid]\nnetwork = ['se_resnet20']\nreduction = [1e9]\n"),
        ("an empty grid", "[grid]\n"),
        ("no network", "[grid]\nreduction = [4]\n"),
        ("values of another type", "[grid]\nnetwork = [1]\n"),
        ("an unknown baseline", study.replace('title = "t"', 'baseline = "x"')),
        ("a title that is a number", study.replace('"t"', "1")),
    ):
        yield "study", how, text.encode(), "", how != "a grid of 1e9 values"
    for how, content in (
        ("empty", b""),
        ("UTF-16", "\n".join(CLASSES).encode("utf-16")),
        ("too few", b"cat\n"),
        ("an empty line", b"cat\n\nemu\n"),
        ("noise", random_.randbytes(500)),
    ):
        yield "classes", how, content, "", True
    report = json.loads(valid["report"].read_text())
    for how, damaged in _damaged(json.dumps(report).encode(), random_, max(1, each // 2)):
        yield "report", how, damaged, "", how.startswith(("cut", "empty", "noise"))
    for how, tree in _mutated(report, random_, 4 * each):
        yield "report", how, json.dumps(tree).encode(), "", False
    yield "report", "nested", b"[" * NESTED, "", True
    yield "report", "UTF-16", json.dumps(report).encode("utf-16"), "", True


# What good files hold.


def _write_shards(images: Path, folder: Path) -> None:
    from senet.data import open_data
    from senet.data.shards.writing import write_shards

    write_shards(open_data(str(images)), folder, "train", images_per_shard=4)


def _caffemodel(factors: int = 1, shape: tuple[int, ...] = (4,)) -> bytes:
    net = net_parameter()
    for name, kind, sizes in (
        ("conv1/7x7_s2", "Convolution", [(4, 3, 7, 7)]),
        ("conv1/7x7_s2/bn", "BatchNorm", [shape, (4,), (factors,)]),
    ):
        layer = net.layer.add(name=name, type=kind)
        for size in sizes:
            blob = layer.blobs.add()
            blob.shape.dim.extend(size)
            blob.data.extend([1.0] * min(1000, abs(int(np.prod([min(abs(n), 100) for n in size])))))
            if size == shape and shape != (4,):
                del blob.data[3:]
    content: bytes = net.SerializeToString()
    return content


def _report() -> dict[str, Any]:
    arm = {
        "name": "a",
        "label": "a",
        "network": "resnet20",
        "settings": [],
        "seeds": 1,
        "mean": 5.0,
        "half": None,
        "baseline": True,
        "paper": None,
        "difference": None,
    }
    return {
        "title": "t",
        "data": "digits",
        "recipe": "digits",
        "training_images": 10,
        "validation_images": 10,
        "epochs": 1,
        "baseline": "a",
        "arms": [arm],
    }
