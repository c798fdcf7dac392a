"""One function a verb: train, tune, promote, roll back, take outcomes, monitor, live a window."""
