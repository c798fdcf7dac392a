"""The processes of `serve`: a supervisor, the workers that answer, the watcher that follows the alias, and reload.

A server never moves an alias, and a worker never imports MLflow: only the watcher asks the registry.
Words: docs/glossary.md.
"""
