"""Limits of the gate that no use case sets, each with its reason; those that one may set are `settings.Gate`."""

MOST_REFUSED = 0.01
"""Share of rows that a version may refuse: a table that people keep has a broken row now and then, and a version that
refuses more of them leaves its users without answers, however good the others are."""
CHEAP = {"size": 10.0, "load time": 1_000.0, "one row": 5.0, "1,000 rows": 100.0}
"""What costs no more than this (MB, milliseconds) is not held against a candidate, however cheap the champion is: a
server is not felt to be slower below it, and the ratio of two small times says little."""
SLICE_TOLERANCE = 2.0
"""How many times the tolerance a slice may lose where the use case names no limit for it: a slice has fewer rows than
the whole, and a model that is as good overall is a little worse somewhere."""
