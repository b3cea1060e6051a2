"""Data, synthesis, training and evaluation of tinyvoice's models.

Imports :mod:`tinyvoice`, and is never imported by it.
"""
