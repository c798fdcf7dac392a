"""Answers of every kind for property tests: tasks, gaps, errors, unknown columns, odd numbers and odd texts."""

import math

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from afterfit.contract.contract import learn
from afterfit.model.answer_batch import AnswerBatch
from afterfit.performance.predictions import Predictions

FRAME = pd.DataFrame(
    {"size": [1.5, 20.0], "count": [1, 9], "colour": ["red", "blue"], "secret": ["a", "b"], "day": ["2024-01-01"] * 2}
)
CONTRACT = learn(FRAME, kinds={"colour": "category", "day": "datetime"}, required=["count"], private=["secret"])
FORGED = '},{"prediction_id":"'
VALUES = {
    "size": [2.0, 2.0, None, 1e300, -3.5, "far", math.inf, math.nan, 2**70],
    "count": [2, 2, 2.5, None, "x"],
    "colour": ["red", "red", 'g"ré\\en', "\n", "\u2028\x00😀", FORGED, None],
    "secret": ["a", None, "zz"],
    "day": ["2024-01-01", None, "long ago"],
    "odd, one": [1],
    'odd "two"': ["x"],
    FORGED: [0],
}
HALF = "half \ud83d"
LABELS = [False, True, 0, 1, 7, "late", 'a "quoted", one', "é", "early", FORGED, "prediction_id"]
finite = st.floats(-1e200, 1e200)


@st.composite
def checked_rows(draw, values=VALUES):
    names = draw(st.lists(st.sampled_from(sorted(values)), unique=True))
    size = draw(st.integers(1, 8))
    rows = {name: draw(st.lists(st.sampled_from(values[name]), min_size=size, max_size=size)) for name in names}
    return CONTRACT.check_columns(rows, size)


@st.composite
def predictions(draw, size, labels=LABELS):
    numbers = st.lists(finite | st.sampled_from([0.0, -0.0, 1.0, 5e-324]), min_size=size, max_size=size)
    odd = draw(st.sampled_from([None, math.nan, math.inf])) if draw(st.booleans()) else None
    classes = tuple(draw(st.lists(st.sampled_from(labels), min_size=2, max_size=4, unique=True)))
    if draw(st.booleans()):
        values = draw(numbers) if odd is None else [odd, *draw(numbers)[1:]]
        ends = [draw(st.none() | numbers) for _ in range(2)]
        return Predictions.of_values(values, *ends)
    table = np.array([draw(numbers) for _ in classes]).T
    if odd is not None:
        table[draw(st.integers(0, size - 1)), 0] = odd
    return Predictions.of_probabilities(table, classes)


@st.composite
def batches(draw, values=VALUES, labels=LABELS):
    """Answers that were made together."""
    checked = draw(checked_rows(values))
    version = draw(st.sampled_from(["7", None, 'a "b"']))
    return AnswerBatch(version, checked, draw(predictions(checked.size, labels)))
