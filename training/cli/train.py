"""Train a projector, an adapter or a whole model by the recipe."""

from __future__ import annotations

import sys

import typer

app = typer.Typer()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: tinyvoice train +experiments=mosa data.max_train_samples=100 "
    "training.max_steps=10",
)
def train(context: typer.Context) -> None:
    """Train by a Hydra configuration; everything behind ``train`` is passed on as overrides.

    Choose the model with ``model=embedded`` or ``model=full``, the data with ``data=synthesis``,
    ``data=loquacious``, ``data=multi_asr`` or ``data=manifest data.corpora.0.manifest=FILE``, an
    experiment with ``+experiments=transcription``, ``mosa``, ``moe``, ``qformer``, ``mlp_lora`` or
    ``mlp_fine_tune``, and override any key: ``training.max_steps=1000``. ``training=large_gpu``
    sets batches for the full model, ``--cfg job`` shows the result. Many devices:
    ``accelerate launch -m training.train …`` with the same overrides.
    """
    from training.train import hydra_main

    sys.argv = ["tinyvoice train", *context.args]
    hydra_main()
