"""Shards for tests: ours, those of others, and where they come from."""

import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from senet.data import ImageData, open_data
from senet.data.shards.writing import write_shards
from tests.images import picture, write_classes

COUNTS = {"cat": 9, "dog": 8, "emu": 6}


def write_source(folder: Path, counts: Mapping[str, int] = COUNTS) -> ImageData:
    return open_data(str(write_classes(folder, counts)), "train")


def write_set(tmp_path: Path, name: str = "train", per: int = 5, **options: Any) -> tuple[ImageData, Path]:
    """23 images of three classes, and their shards: 5, 5, 5, 5 and 3."""
    source = write_source(tmp_path / f"source-{name}")
    write_shards(source, tmp_path / "shards", name, images_per_shard=per, **options)
    return source, tmp_path / "shards"


def contents(data: ImageData) -> dict[bytes, str]:
    """The encoded images, each with the name of its class."""
    found = {}
    for index, label in enumerate(data.labels.tolist()):
        file = data.source.read(int(data.indices[index]))
        with file:  # type: ignore[union-attr]
            found[file.read()] = data.classes[label]  # type: ignore[union-attr]
    return found


def foreign(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    """A shard as others write them: members by key and extension."""
    with tarfile.open(path, "w") as archive:
        for key, members in samples.items():
            for extension, content in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


class _Quiet(SimpleHTTPRequestHandler):
    """Files of a folder. `broken` maps a name to how many times it breaks off."""

    broken: dict[str, int] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.asked.append(name)
        if not self.broken.get(name):
            super().do_GET()
            return
        self.broken[name] -= 1
        content = (Path(self.directory) / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:5000])


@contextmanager
def serve(folder: Path, broken: Mapping[str, int] | None = None) -> Iterator[tuple[str, list[str]]]:
    """A folder over HTTP on this machine: its address, and what was asked for."""
    handler = type("Handler", (_Quiet,), {"broken": dict(broken or {}), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
