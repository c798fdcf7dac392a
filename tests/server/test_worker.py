"""What runs beside a worker's requests: sealing goes on whatever it meets, and freed memory is given back."""

import numpy as np

from afterfit.server import memory
from afterfit.server.memory import SLACK, FreedMemory, resident
from afterfit.server.worker import Worker
from afterfit.serving.service import Service
from afterfit.settings import Serving


class Told:
    def __init__(self):
        self.faults = []

    def tell(self, identity, error):
        self.faults.append((identity, str(error)))


def test_whatever_sealing_meets_is_told_and_shown_until_it_succeeds_again():
    worker = object.__new__(Worker)
    worker.service, worker._faults = Service("made", "production", Serving()), Told()
    assert worker.service.seals
    for error in (TypeError("Recursion limit reached"), MemoryError("no memory"), RecursionError("too deep")):

        def fail(error=error):
            raise error

        worker._survive(fail, seals=True)
        assert worker._faults.faults[-1] == ("seal", str(error))
        assert not worker.service.seals
        worker._survive(lambda: None)  # that the backlog can be counted says nothing of sealing
        assert not worker.service.seals
        worker._survive(lambda: None, seals=True)
        assert worker.service.seals


def test_memory_is_given_back_where_the_process_has_grown_and_only_there(monkeypatch):
    freed = FreedMemory()
    assert freed.give_back() is False
    if freed._trim is None:
        return
    grown = resident() + 2 * SLACK
    monkeypatch.setattr(memory, "resident", lambda: grown)
    assert freed.give_back() is True
    assert freed.give_back() is False


def test_the_resident_memory_is_that_of_this_process():
    before = resident()
    held = np.ones(2**24)
    assert before == 0 or resident() > before + held.nbytes // 2
