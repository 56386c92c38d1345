"""`florentune import-weights`: safetensors from a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    pickle: Annotated[Path, typer.Argument(help="pytorch_model.bin or another pickle of weights.")],
    folder: Annotated[Path, typer.Argument(help="The model folder that gets model.safetensors.")],
) -> None:
    """Turn pickled weights into model.safetensors.

    No other command opens a pickle. It is read by torch's restricted loader in a child process without network,
    other processes or files.

    \b
    florentune import-weights Florence-2-base/pytorch_model.bin Florence-2-base
    """
    from ..model.import_weights import import_weights

    typer.echo(f"wrote {import_weights(pickle, folder)}")
