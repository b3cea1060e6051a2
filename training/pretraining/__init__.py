"""Pretraining of miniature backbones, so that the recipe has an encoder and a language model to
freeze.

The full-size recipe starts from a published GLM-ASR encoder and a published Qwen3. The embedded
checkpoint has neither, so both are made here: ``encoder`` learns to name the phoneme and the letter
of every frame of synthetic speech; ``reader`` teaches a language model, on labels alone and without
any audio, to read noisy phoneme frames as text. ``embedded`` runs the whole way from text to
checkpoint.
"""
