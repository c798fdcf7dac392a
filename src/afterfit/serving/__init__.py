"""HTTP over a bundle: doors, micro-batches, reload, metrics and the prediction log."""
