"""One module an entry point: options in, one call of `lifecycle` or `serving`, lines and data out.

A command never computes or records anything by itself. Words: docs/glossary.md.
"""
