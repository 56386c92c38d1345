"""`florentune convert`: annotations from one format to another."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """The annotation formats."""

    coco = "coco"
    yolo = "yolo"
    llamafactory = "llamafactory"
    jsonl = "jsonl"


class Order(StrEnum):
    """How the boxes of a page are ordered."""

    label = "label"
    category = "category"
    file = "file"


def command(
    source: Annotated[Path, typer.Argument(help="Annotation file, or a folder that holds one.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="File to write; a folder for YOLO.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="Format to write.", show_default=False)],
    from_format: Annotated[
        Format | None, typer.Option("--from", help="Format of SOURCE; recognised if not given.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder or zip of the images; entries without a file are left out.")
    ] = None,
    order: Annotated[
        Order,
        typer.Option(
            help="Boxes by label, then top to bottom and left to right (label); by label only (category); as they are."
        ),
    ] = Order.label,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out pages without boxes; otherwise their answer is empty.")
    ] = False,
    ignore: Annotated[
        list[str], typer.Option(help="Category of a COCO file to leave out; may be given more than once.")
    ] = ["ignore"],  # noqa: B006  typer copies it
    split: Annotated[
        str | None, typer.Option(help="Shares of train and val (85/15), or of train, val and test (80/10/10).")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Regular expression on image names; pages whose first group is the same stay together."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    register: Annotated[
        Path | None, typer.Option(help="dataset_info.json that gets an entry for every file written.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of that entry; the file's name if not given.")] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images too: to images/ beside the file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert between COCO, YOLO, LLaMA-Factory and JSON lines.

    Labels come from the file. What is left out or changed is counted, listed and never silent.

    Examples:

        florentune convert annotations.json data/tfid.json --to llamafactory --register data/dataset_info.json

        florentune convert annotations.json data/ --to llamafactory --split 85/15 --group-by '^(arxiv_\\d+_\\d+)_'

        florentune convert annotations.json yolo/ --to yolo --images pages.zip --copy-images
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..formats.check import describe
    from ..formats.convert import convert

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (console.is_terminal and copy_images)) as bar:
        task = bar.add_task("images", total=None)
        done = convert(
            source,
            target,
            to=to.value,
            images=images,
            format=from_format.value if from_format else None,
            ignore=ignore,
            order=order.value,
            skip_empty=skip_empty,
            shares=split,
            group_by=group_by,
            seed=seed,
            registry=register,
            name=name,
            copy_images=copy_images,
            on_copy=lambda: bar.advance(task),
        )
    if as_json:
        typer.echo(json.dumps(done.as_dict()))
        return
    for line in describe(done.issues):
        typer.echo(line)
    for part, dataset in done.parts.items():
        typer.echo(f"{done.files[part]}: {part + ': ' if part else ''}{dataset.describe()}")
    if to is Format.llamafactory:
        typer.echo(f"media_dir: {done.images or 'the folder of the images'}")
    elif to is Format.yolo and not copy_images:
        typer.echo(f"put the images into {target}/images/<part>/, or convert with --copy-images")
    for entry in done.registered:
        typer.echo(f"dataset: {entry} (in {register})")
