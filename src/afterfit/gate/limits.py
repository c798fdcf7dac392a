"""Limits of the gate that are the same for all use cases, each with its reason. The others are in `settings.Gate`."""

MOST_REFUSED = 0.01
"""Share of rows that a version may refuse. Real tables have a broken row now and then; but a version that refuses more
leaves its users without answers, however good its other answers are."""
CHEAP = {"size": 10.0, "load time": 1_000.0, "one row": 5.0, "1,000 rows": 100.0}
"""Costs up to this (MB, milliseconds) always pass, however cheap the champion is: users do not notice the difference,
and the ratio of two small times says little."""
SLICE_TOLERANCE = 2.0
"""A slice may lose so many times the tolerance, where the use case names no limit for slices: a slice has fewer rows
than the whole, and a model that is as good overall is a little worse somewhere."""
