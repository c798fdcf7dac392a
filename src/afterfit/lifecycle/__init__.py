"""One function for each thing to do: train, tune, score, compare, promote, roll back, load outcomes, monitor, step.

Each function reads, calls the wings below, and records. None parses options or prints. Words: docs/glossary.md.
"""
