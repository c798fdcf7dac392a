"""HTTP over a bundle: endpoints, micro-batches, reload, metrics, and the prediction log behind the answers.

A server never moves an alias, and a process that answers never imports MLflow. Words: docs/glossary.md.
"""
