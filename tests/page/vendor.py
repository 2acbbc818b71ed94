"""Whether the plotting library in the package is what npm has of the versions that it names: `make vendor`.

With a new version in `sources.json`, it writes that version's files and their hashes.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "src" / "senet" / "gates" / "report" / "vendor"


def main() -> None:
    sources = json.loads((FOLDER / "sources.json").read_text("utf-8"))
    changed = False
    for source in sources:
        library, license_text = fetch(source)
        digest = hashlib.sha256(library).hexdigest()
        name = f"{source['package']} {source['version']}"
        if digest == source["sha256"] == hashlib.sha256((FOLDER / source["file"]).read_bytes()).hexdigest():
            print(f"{source['file']}: as in {name}")
            continue
        if f"v{source['version']} ".encode() in (FOLDER / source["file"]).read_bytes()[:120]:
            sys.exit(
                f"{source['file']} says that it is {name}, but npm's file differs: do not use it before you know why"
            )
        (FOLDER / source["file"]).write_bytes(library)
        (FOLDER / source["license"]).write_bytes(license_text)
        source["sha256"], changed = digest, True
        print(f"{source['file']}: now {name}")
    if changed:
        (FOLDER / "sources.json").write_text(json.dumps(sources, indent=2) + "\n", "utf-8")


def fetch(source: dict[str, str]) -> tuple[bytes, bytes]:
    """The library and its licence, out of npm's archive, which npm checks."""
    with tempfile.TemporaryDirectory() as folder:
        package = f"{source['package']}@{source['version']}"
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(Path(folder) / done.stdout.split()[-1]) as archive:
            return archive.extractfile(source["path"]).read(), archive.extractfile("package/LICENSE").read()


if __name__ == "__main__":
    main()
