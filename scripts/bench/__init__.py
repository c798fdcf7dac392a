"""Benchmarks: what is claimed of Afterfit, measured. README.md beside this file lists them."""
