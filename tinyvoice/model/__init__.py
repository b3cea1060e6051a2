"""Speech recognition model: configuration, projectors, encoder, decoding, checkpoints.

Import from the modules, or the main names from ``tinyvoice``; this package itself imports nothing,
which keeps a use of one module from loading the others.
"""
