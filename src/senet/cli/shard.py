"""`senet shard`: write a data set as WebDataset shards."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, note, print_json, progress, refuse, stdout
from senet.cli.common.outputs import check_folder_option
from senet.utils.choices import Split
from senet.utils.errors import TrainingError

if TYPE_CHECKING:
    from senet.data import ImageData
    from senet.data.shards import ShardIndex

__all__ = ["shard"]


def shard(
    data: Annotated[str, typer.Argument(metavar="SPEC", help="Data, as for senet train; wds:DIR with --verify.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for the shards; created if necessary.")
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Only this split; for data without splits, the name of the shards."),
    ] = None,
    images_per_shard: Annotated[int | None, typer.Option(help="Images per shard.")] = None,
    megabytes: Annotated[
        float | None,
        typer.Option(help="Approximate size of a shard instead. [default: 100, or less to have 8 shards]"),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Number of processes.")] = min(4, os.cpu_count() or 1),
    keep_order: Annotated[
        bool,
        typer.Option("--keep-order", help="Keep the order of the data. Streaming for training needs a random order."),
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable images.")] = False,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Write only an index of the existing shards of SPEC (wds:...).")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the checksums of the shards of wds:DIR; write nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a data set as WebDataset shards (NAME-000000.tar, ...; KEY.jpg and KEY.cls), with an index.

    Encoded images are copied byte for byte; pixels become PNG. Every image is decoded once, to verify it. Run the same
    command again to resume an interrupted one, with the same result; or to verify all shards and write damaged ones
    again. Train on the shards with --data wds:DIR.
    """
    if verify or index_only:
        of_writing = {
            "--split": split,
            "--images-per-shard": images_per_shard,
            "--megabytes": megabytes,
            "--keep-order": keep_order,
            "--skip-bad": skip_bad,
            "--output": output if verify else None,
        }
        refuse(of_writing, f"is for writing shards, and {'--verify' if verify else '--index-only'} writes none")
    if verify:
        _verify(data, json)
        return
    if output is None:
        raise ValueError("--output DIR is missing: give a folder for the shards")
    check_folder_option("--output", output, inputs=(None if index_only else data,))
    if index_only:
        _index(data, Path(output), json)
        return
    options = {
        "images_per_shard": images_per_shard,
        "megabytes": megabytes,
        "keep_order": keep_order,
        "skip_bad": skip_bad,
        "jobs": jobs,
    }
    answers = [_write(images, Path(output), name, options) for name, images in _splits(data, split)]
    if json:
        print_json({"output": output, "sets": answers})
        return
    for answer in answers:
        kept = f", of which {answer['kept']:,} existed and were verified" if answer["kept"] else ""
        stdout.print(
            f"{answer['images']:,} images of {answer['classes']:,} classes in {answer['shards']:,} shards, "
            f"{answer['bytes'] / 1e6:,.1f} MB{kept}: {answer['index']}",
            soft_wrap=True,
        )


def _splits(spec: str, split: Split | None) -> "list[tuple[str, ImageData]]":
    """Open the splits to write, with the names of their shards."""
    from senet.data import open_data

    if split is not None:
        classes = None
        if split == "val":
            training = open_data(spec, "train")
            classes = training.classes if training.has_splits else None
        return [(split, open_data(spec, split, classes=classes))]
    training = open_data(spec, "train")
    if not training.has_splits:
        return [("images", training)]
    return [("train", training), ("val", open_data(spec, "val", classes=training.classes))]


def _write(images: "ImageData", folder: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    from senet.data.shards import write_shards

    begun = []

    def with_progress(steps: Any, total: int, what: str) -> Any:
        begun.append(what)
        return progress(steps, total, what)

    try:
        written = write_shards(images, folder, name, progress=with_progress, **options)
    except (ValueError, OSError) as error:
        if not begun:
            raise
        raise TrainingError(f"{error}; complete shards are kept, and the same command resumes from there") from error
    index = written.index
    for file in written.repaired:
        note(f"{folder / file} was damaged, or its images have changed; it was written again", style="yellow")
    if index.left_out:
        some = ", ".join(index.left_out[:3]) + (", ..." if len(index.left_out) > 3 else "")
        note(f"skipped {len(index.left_out)} unreadable images: {some}", style="yellow")
    return _answer(index, written.path) | {"kept": written.kept, "repaired": list(written.repaired)}


def _answer(index: "ShardIndex", path: Path) -> dict[str, Any]:
    return {
        "index": str(path),
        "images": len(index.rows),
        "classes": len(index.classes),
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "left_out": len(index.left_out),
    }


def _index(spec: str, folder: Path, json: bool) -> None:
    """Write an index of shards of other programs."""
    from senet.data.shards import index_spec, is_own

    index = index_spec(spec, progress=progress)
    if is_own(folder, index.name):
        raise ValueError(
            f"the folder {folder} is in use: its {index.name}.index.json belongs to shards that senet wrote; choose "
            f"another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    answer = _answer(index, index.write(folder))
    if json:
        print_json(answer)
    else:
        stdout.print(
            f"{answer['images']:,} images of {answer['classes']:,} classes in {answer['shards']:,} shards: "
            f"{answer['index']}",
            soft_wrap=True,
        )


def _verify(spec: str, json: bool) -> None:
    from senet.data.shards import damaged_shards, index_names

    folder = Path(spec.removeprefix("wds:"))
    found = {name: damaged_shards(folder, name, progress=progress) for name in index_names(folder)}
    if json:
        print_json({n: _answer(index, folder) | {"damaged": wrong} for n, (index, wrong) in found.items()})
    else:
        for name, (index, wrong) in found.items():
            stdout.print(f"{name}: {len(index.shards) - len(wrong):,} of {len(index.shards):,} shards are intact")
            for line in wrong:
                stdout.print(f"damaged: {line}", soft_wrap=True)
    if any(wrong for _, wrong in found.values()):
        raise typer.Exit(1)
