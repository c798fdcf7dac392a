"""One module for each entry point: it reads options, calls the wings below, and gives lines and data.

A command never measures or judges anything itself. Words: docs/glossary.md.
"""
