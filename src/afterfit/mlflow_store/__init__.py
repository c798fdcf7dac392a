"""The seam to MLflow: runs, versions, aliases, the ledger, the lock, and what the loop writes down.

It never measures or decides. Beside `served.py`, nothing else in the package calls MLflow. Words: docs/glossary.md.
"""
