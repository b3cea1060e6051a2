"""Options that several commands share, so that they are called and explained alike everywhere."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """What the model computes in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="TINYVOICE_MODEL",
        metavar="NAME|FOLDER",
        help="Model: 'embedded', a folder, or a Hugging Face id. See: tinyvoice models",
    ),
]
"""Which model; ``"embedded"`` unless said."""

ModelPrecision = Annotated[
    Precision, typer.Option("--dtype", help="What to compute in; auto suits the device.")
]
"""What the model computes in; ``Precision.AUTO`` unless said."""

LoadInt8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Round weights to 8-bit integers while loading: the full model is then faster on a "
        "CPU and smaller everywhere; the embedded one gains nothing.",
    ),
]
"""Whether the encoder and the language model compute with 8-bit weights."""
