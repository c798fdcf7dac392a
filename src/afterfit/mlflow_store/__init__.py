"""The seam to MLflow: runs, versions, the ledger, the lock, and what the loop writes down."""
