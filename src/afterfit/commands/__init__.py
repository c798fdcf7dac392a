"""One module an entry point: options in, a call of the wings below, lines and data out.

A command never measures or judges anything by itself. Words: docs/glossary.md.
"""
