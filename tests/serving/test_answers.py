"""Many answers written from columns: the text that orjson writes of them one by one."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.contract.contract import learn
from afterfit.model.bundle import Bundle, fresh_ids
from afterfit.performance.predictions import Predictions
from afterfit.serving import payloads
from afterfit.serving.engine import MANY, AnswerBatch, Engine, engine, ids_of, named
from afterfit.serving.metrics import ServerMetrics
from afterfit.serving.service import count

FRAME = pd.DataFrame(
    {"size": [1.5, 20.0], "count": [1, 9], "colour": ["red", "blue"], "secret": ["a", "b"], "day": ["2024-01-01"] * 2}
)
CONTRACT = learn(FRAME, kinds={"colour": "category", "day": "datetime"}, required=["count"], private=["secret"])
VALUES = {
    "size": [2.0, 2.0, None, 1e300, -3.5, "far", math.inf],
    "count": [2, 2, 2.5, None, "x"],
    "colour": ["red", "red", 'g"ré\\en', "\n", None],
    "secret": ["a", None, "zz"],
    "day": ["2024-01-01", None, "long ago"],
    "odd, one": [1],
    'odd "two"': ["x"],
}
LABELS = [False, True, 0, 1, 7, "late", 'a "quoted", one', "é", "early"]
finite = st.floats(-1e200, 1e200)


def made_bundle(classes, version):
    return Bundle(SimpleNamespace(classes=classes, contract=CONTRACT), None, "", (), version)


@st.composite
def checked_rows(draw, values=VALUES):
    names = draw(st.lists(st.sampled_from(sorted(values)), unique=True))
    size = draw(st.integers(1, 8))
    rows = {name: draw(st.lists(st.sampled_from(values[name]), min_size=size, max_size=size)) for name in names}
    return CONTRACT.check_columns(rows, size)


@st.composite
def predictions(draw, size):
    numbers = st.lists(finite | st.sampled_from([0.0, -0.0, 1.0]), min_size=size, max_size=size)
    odd = draw(st.sampled_from([None, math.nan, math.inf])) if draw(st.booleans()) else None
    classes = tuple(draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=4, unique=True)))
    if draw(st.booleans()):
        values = draw(numbers) if odd is None else [odd, *draw(numbers)[1:]]
        ends = [draw(st.none() | numbers) for _ in range(2)]
        return Predictions.of_values(values, *ends)
    table = np.array([draw(numbers) for _ in classes]).T
    if odd is not None:
        table[draw(st.integers(0, size - 1)), 0] = odd
    return Predictions.of_probabilities(table, classes)


@st.composite
def all_answers(draw):
    checked = draw(checked_rows())
    made = draw(predictions(checked.size))
    return AnswerBatch(made_bundle(made.classes, draw(st.sampled_from(["7", None, 'a "b"']))), checked, made)


@settings(max_examples=150, deadline=None)
@given(all_answers())
def test_the_text_is_what_orjson_writes_of_the_dictionaries(answers):
    assert answers.text == orjson.dumps(list(answers))
    assert [list(one) for one in orjson.loads(answers.text)] == [list(one) for one in answers]
    assert payloads.predictions_body(answers) == orjson.dumps({"predictions": list(answers)})
    assert payloads.list_body(answers) == orjson.dumps(list(answers))


@settings(max_examples=60, deadline=None)
@given(all_answers())
def test_counts_of_columns_are_those_of_the_dictionaries(answers):
    made = Engine(answers.bundle, None, columns=frozenset(CONTRACT.names), edges=(0.0, 1.0))
    together, apart = ServerMetrics(), ServerMetrics()
    count(together, made, answers)
    count(apart, made, list(answers))
    assert together.counts == apart.counts
    assert {key: one.counts for key, one in together.histograms.items()} == {
        key: one.counts for key, one in apart.histograms.items()
    }


def test_more_warnings_than_a_word_has_bits_are_each_in_their_place():
    frame = pd.DataFrame({f"c{k}": [0.0, 1.0] for k in range(150)})
    wide = learn(frame)
    columns = {name: [0.5, None, 2.0 if k % 7 else None] for k, name in enumerate(wide.names) if k % 11}
    checked = wide.check_columns(columns, 3)
    answers = AnswerBatch(made_bundle(None, "1"), checked, Predictions.of_values([1.0, 2.0, 3.0]))
    assert answers.text == orjson.dumps(list(answers))
    assert len(answers[1]["warnings"]) == 150


@pytest.mark.parametrize("classes", [(0, 1, "\ud83d"), (0, 1, 2**70)])
def test_labels_that_orjson_cannot_write_are_written_the_long_way(classes):
    checked = CONTRACT.check_columns({"count": [1, 2]}, 2)
    answers = AnswerBatch(
        made_bundle(classes, "1"), checked, Predictions.of_probabilities(np.full((2, 3), 0.3) + np.eye(3)[1:], classes)
    )
    assert answers.text is None
    assert [one["prediction"] for one in json.loads(payloads.list_body(answers))] == list(classes[1:])


def test_classes_with_one_name_in_json_are_written_as_the_dictionaries_are():
    checked = CONTRACT.check_columns({"count": [1, 2]}, 2)
    table = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    answers = AnswerBatch(made_bundle((1, "1", 2), "1"), checked, Predictions.of_probabilities(table, (1, "1", 2)))
    assert answers.text == orjson.dumps(list(answers))
    assert answers[0]["probabilities"] == {"1": 0.3, "2": 0.5}


def test_answers_under_other_ids_differ_in_nothing_else(bundle):
    rows = [{"distance": 100.0 + k, "carrier": "ZZ" if k % 3 else None} for k in range(MANY)]
    made = engine(bundle)
    together, few = made.answers(rows), made.answers(rows[:3])
    assert list(ids_of(together)) == [answer["prediction_id"] for answer in together]
    for answers in (together, few):
        ids = [str(k) for k in range(len(answers))]
        other = named(answers, ids)
        assert list(other) == [answer | {"prediction_id": one} for answer, one in zip(answers, ids, strict=True)]
        assert list(ids_of(other)) == ids
    assert orjson.loads(named(together, ids_of(together)).text) == list(together)


def test_answers_are_a_sequence_whose_ids_stay(bundle):
    answers = engine(bundle).answers([{"distance": 100.0, "carrier": "AA"}] * MANY)
    text = answers.text
    assert orjson.loads(text) == list(answers) == answers[:]
    assert answers[-1] is answers[MANY - 1]
    assert len(answers) == len(set(answers.ids)) == MANY


def test_no_rows_have_no_answers():
    checked = replace(CONTRACT.check_columns({"count": []}, 0), issues=())
    answers = AnswerBatch(made_bundle(None, "1"), checked, Predictions.of_values([]))
    assert answers.text == b"[]"


def test_ids_of_many_answers_differ_and_are_as_long_as_single_ones():
    for count_of in (0, 1, 1024, 2500):
        ids = [*fresh_ids(count_of), *fresh_ids(count_of)]
        assert len(set(ids)) == 2 * count_of
        assert {len(one) for one in ids} <= {32}
        assert all(int(one, 16) for one in ids)
