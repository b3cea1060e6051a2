"""Synthetic speech with exact word times: voices, synthesisers, text sources and the corpus maker.

Two synthesisers are used, both offline: eSpeak NG (through the pip package ``espeakng-loader``)
and, where its Debian package is installed, Flite. Neither is imported until a voice of it is asked
for.
"""
