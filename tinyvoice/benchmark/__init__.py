"""Measuring the streaming engine: speech, load from a process of its own, baseline, report."""
