"""Waiting for what another thread or process does: on the thing itself, for as long as a busy machine may take."""

import time

PATIENCE = 120
"""Seconds after which what has not come is not coming; no test is quicker or slower for it when all is well."""


def eventually(condition, process=None):
    """Whether it comes true; given up early where the process that should bring it about has ended."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until or (process is not None and process.poll() is not None):
            return bool(condition())
        time.sleep(0.05)
    return True
