"""`florentune export`: a checkpoint in another layout."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """What a checkpoint can be written as."""

    native = "native"
    microsoft = "microsoft"
    onnx = "onnx"


class Dtype(StrEnum):
    """How the weights are stored."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def command(
    model: Annotated[str, typer.Argument(help="nano, a model folder of any layout, or a hub id owner/name.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; a model that is there is replaced.")],
    to: Annotated[Layout, typer.Option(help="native for transformers, microsoft for remote-code loaders, or onnx.")],
    dtype: Annotated[
        Dtype | None, typer.Option(help="How to store the weights; as they are when left out. int8 only with onnx.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base model of bare weights or of an adapter.")] = None,
) -> None:
    """Write a checkpoint in another layout.

    Adapters are merged.

    \b
    florentune export runs/tables/best tables-native --to native
    florentune export runs/tables/best tables-ms --to microsoft
    florentune export adapter/ merged --to native --base owner/model
    florentune export runs/tables/best tables-onnx --to onnx --dtype int8
    """
    from ..errors import InputError, MissingExtraError
    from ..model.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model, base=base)
    if dtype is Dtype.int8 and to is not Layout.onnx:
        raise InputError("--dtype int8 is for --to onnx; safetensors are written as fp32, fp16 or bf16")
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    if to is Layout.onnx:
        from ..engines.export import export_onnx

        export_onnx(checkpoint, out, dtype=(dtype or Dtype.fp32).value)
        notes: list[str] = []
    else:
        from ..model.conversion import convert_checkpoint

        notes = convert_checkpoint(checkpoint, out, to=to.value, dtype=dtype.value if dtype else None)
    typer.echo(f"wrote {out} ({to.value})")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
