"""One function a verb: train, tune, score, compare, promote, roll back, take outcomes, monitor, step.

Each one reads, calls the wings below, and records. None parses options or prints. Words: docs/glossary.md.
"""
