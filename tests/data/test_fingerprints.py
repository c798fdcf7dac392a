"""What rows are by content, in whatever type, file and company they come."""

import subprocess
import sys

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from afterfit.data.fingerprints import row_hashes
from afterfit.data.reading import TableReading

ANY = TableReading({})


def test_equal_values_have_equal_hashes_in_whatever_type_they_are_held():
    when = ["2024-01-01 10:00", None, "2024-07-01 12:30"]
    one = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "m": [1.0, np.nan, 0.0],
            "t": pd.to_datetime(when),
            "c": ["x", None, "y"],
            "b": [True, False, True],
        }
    )
    other = pd.DataFrame(
        {
            "b": pd.array([1, 0, 1], dtype="Int64"),
            "c": pd.Categorical(["x", None, "y"]),
            "t": pd.to_datetime(when).tz_localize("UTC").tz_convert("Asia/Tokyo").astype("datetime64[s, Asia/Tokyo]"),
            "m": pd.array([1, None, 0], dtype="Int8"),
            "n": [1.0, 2.0, 3.0],
        }
    )
    objects = one.astype(object)
    first = row_hashes(one, list(one), ANY)
    assert (first == row_hashes(other, list(other), ANY)).all()
    assert (first == row_hashes(objects, list(objects), ANY)).all()


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1)), min_size=2, unique=True))
def test_different_numbers_have_different_hashes(numbers):
    assert len(set(row_hashes(pd.DataFrame({"n": numbers}), ["n"], ANY).tolist())) == len(numbers)


def test_values_that_change_places_change_the_hash():
    frame = pd.DataFrame({"a": ["x", "y"], "b": ["y", "x"]})
    assert len(set(row_hashes(frame, ["a", "b"], ANY).tolist())) == 2


def test_hashes_are_the_same_in_every_process_and_release():
    code = (
        "import pandas as pd; from afterfit.data.fingerprints import row_hashes; "
        "f = pd.DataFrame({'a': ['x', None], 'n': [1.5, 2], 't': pd.to_datetime(['2024-01-01', None])}); "
        "print(row_hashes(f, list(f), None).tolist())"
    )
    path = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.strip() == "[8704495287293205287, 5024211702730959543]"
