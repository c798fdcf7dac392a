"""One answer, one form: woven for many at once, written alone, as a dictionary, in the log, in a table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings

from afterfit.contract.contract import learn
from afterfit.model.answer import Answer, answer_of_number, fresh_ids, keys
from afterfit.model.answer_batch import AnswerBatch, json_list, json_of_single, prediction_ids, to_dicts, with_ids
from afterfit.model.answer_table import answer_table
from afterfit.performance.predictions import Predictions
from afterfit.prediction_log.entries import BatchRecord, LogEntry, batch_record_of, loaded, record_of, unbatch
from made_answers import CONTRACT, HALF, VALUES, batches

ANSWER_COLUMNS = [name for name in LogEntry._fields if name in Answer._fields and name != "prediction_id"]
TEXTS = ("prediction", "probabilities", "warnings", "error")
HALVES = {**VALUES, "colour": ["red", HALF, None], HALF: [1]}


def joined(texts):
    return b"[" + b",".join(texts) + b"]"


@settings(max_examples=150, deadline=None)
@given(batches())
def test_text_of_many_is_that_of_each_and_what_orjson_writes_of_the_dictionaries(batch):
    dicts = [answer.to_dict() for answer in batch]
    assert batch.to_json() == joined(answer.to_json() for answer in batch) == orjson.dumps(dicts)
    assert json_list(list(batch)) == batch.to_json()
    assert orjson.dumps(to_dicts(batch)) == batch.to_json()
    assert {tuple(one) for one in dicts} == {keys(batch.predictions.task)}
    for row, answer in enumerate(batch):
        assert json_list(batch[row : row + 2]) == joined(one.to_json() for one in batch.answers[row : row + 2])
        assert json_of_single(batch[row : row + 1]) == json_of_single([answer]) == answer.to_json()


@settings(max_examples=50, deadline=None)
@given(batches(HALVES, [True, 2**70, HALF, "late"]))
def test_what_orjson_cannot_write_is_written_alike_for_many_and_for_each(batch):
    assert batch.to_json() == joined(answer.to_json() for answer in batch) == json_list(list(batch))
    assert json.loads(batch.to_json()) == json.loads(json.dumps(to_dicts(batch)))
    assert [json_of_single(batch[row : row + 1]) for row in range(len(batch))] == [one.to_json() for one in batch]


def in_the_log(answer):
    """What the log must keep of an answer: its numbers as they are, all else as JSON."""
    content, numbers = loaded(answer.to_json()), ANSWER_COLUMNS
    kept = {name: content.get(name) for name in numbers}
    return kept | {"warnings": kept["warnings"] or None}


def read_back(record):
    entry = LogEntry._make(record)._asdict()
    return {name: loaded(entry[name]) if name in TEXTS and entry[name] else entry[name] for name in ANSWER_COLUMNS}


@settings(max_examples=80, deadline=None)
@given(batches() | batches(HALVES, ["late", HALF, "early"]))
def test_the_log_gives_each_answer_back_however_it_was_written(batch):
    features = orjson.dumps([{}] * len(batch))
    alone = [record_of(answer, 7, "1", False, None, b"{}", 0.5) for answer in batch]
    many = BatchRecord(
        len(batch), 7, "1", shadow=False, keys=None, features=features, answers=batch.to_json(), seconds=0.5
    )
    expected = [in_the_log(answer) for answer in batch]
    assert [read_back(record) for record in alone] == expected
    assert [read_back(record) for record in unbatch(many.record())] == expected
    assert [read_back(record) for record in unbatch(batch_record_of(alone).record())] == expected
    assert [record[0] for record in unbatch(many.record())] == list(batch.ids)


def noted(notes):
    return [(one["column"], one["code"], None if one["value"] is None else str(one["value"])) for one in notes]


@settings(max_examples=80, deadline=None)
@given(batches(labels=["late", "early", "é", 'a "b"']))
def test_a_row_of_the_table_is_the_answer(batch):
    frame, scored = pd.DataFrame(index=range(len(batch))), (batch.checked, batch.predictions)
    bundle = SimpleNamespace(version=batch.version, scorer=SimpleNamespace(score=lambda _: scored))
    table = answer_table(bundle, frame, [], 0)[0]
    own = [key for key in keys(batch.predictions.task) if key in table.column_names]
    assert table.column_names == ["row", *own]
    for row, answer in zip(table.to_pylist(), to_dicts(batch), strict=True):
        if row.get("probabilities") is not None:
            row["probabilities"] = dict(zip(batch.predictions.classes, row["probabilities"], strict=True))
        for key in set(own) - {"prediction_id", "warnings", "error"}:
            assert row[key] == answer[key]
        assert noted(row["warnings"]) == [one for one in noted(answer["warnings"]) if one[1] != "unknown_column"]
        assert noted(row["error"][:1]) == noted([answer["error"]] if answer["error"] else [])


def test_an_answer_cannot_be_changed():
    answer = answer_of_number(1.5, None, "7", [])
    with pytest.raises(AttributeError):
        answer.prediction = False


def test_more_warnings_than_a_word_has_bits_are_each_in_their_place():
    frame = pd.DataFrame({f"c{k}": [0.0, 1.0] for k in range(150)})
    wide = learn(frame)
    columns = {name: [0.5, None, 2.0 if k % 7 else None] for k, name in enumerate(wide.names) if k % 11}
    batch = AnswerBatch("1", wide.check_columns(columns, 3), Predictions.of_values([1.0, 2.0, 3.0]))
    assert batch.to_json() == orjson.dumps(to_dicts(batch))
    assert len(batch[1].warnings) == 150


@pytest.mark.parametrize("classes", [(0, 1, "\ud83d"), (0, 1, 2**70)])
def test_labels_that_orjson_cannot_write_are_written_the_long_way(classes):
    table = np.full((2, 3), 0.3) + np.eye(3)[1:]
    checked = CONTRACT.check_columns({"count": [1, 2]}, 2)
    batch = AnswerBatch("1", checked, Predictions.of_probabilities(table, classes))
    assert [one["prediction"] for one in json.loads(batch.to_json())] == list(classes[1:])


def test_classes_with_one_name_in_json_are_written_as_the_dictionaries_are():
    checked = CONTRACT.check_columns({"count": [1, 2]}, 2)
    table = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    batch = AnswerBatch("1", checked, Predictions.of_probabilities(table, (1, "1", 2)))
    assert batch.to_json() == orjson.dumps(to_dicts(batch))
    assert batch[0].probabilities == {"1": 0.3, "2": 0.5}


def test_answers_under_other_ids_differ_in_nothing_else():
    checked = CONTRACT.check_columns({"count": [1, None, 3]}, 3)
    batch = AnswerBatch("1", checked, Predictions.of_values([1.0, 2.0, 3.0]))
    for answers in (batch, list(batch)):
        other = with_ids(answers, ["a", "b", "c"])
        assert list(prediction_ids(other)) == ["a", "b", "c"]
        assert to_dicts(other) == [
            one | {"prediction_id": name} for one, name in zip(to_dicts(answers), "abc", strict=True)
        ]
    assert json.loads(json_list(with_ids(batch, prediction_ids(batch)))) == to_dicts(batch)


def test_many_answers_are_a_sequence_whose_ids_stay():
    checked = CONTRACT.check_columns({"count": [1, 2, 3]}, 3)
    batch = AnswerBatch("1", checked, Predictions.of_values([1.0, 2.0, 3.0]))
    assert json.loads(batch.to_json()) == [one.to_dict() for one in batch[:]]
    assert batch[-1] is batch[2] is batch[1:][1] is batch[::2][1]
    assert list(batch[1:][:1]) == [batch[1]]
    assert [len(batch), len(batch[1:]), len(batch[2:1]), json_list(batch[2:1])] == [3, 2, 0, b"[]"]
    assert len(set(batch.ids)) == 3


def test_no_rows_have_no_answers():
    checked = replace(CONTRACT.check_columns({"count": []}, 0), issues=())
    batch = AnswerBatch("1", checked, Predictions.of_values([]))
    assert (batch.to_json(), to_dicts(batch), json_list(batch[:])) == (b"[]", [], b"[]")


def test_ids_of_many_answers_differ_and_are_as_long_as_single_ones():
    for count_of in (0, 1, 1024, 2500):
        ids = [*fresh_ids(count_of), *fresh_ids(count_of)]
        assert len(set(ids)) == 2 * count_of
        assert {len(one) for one in ids} <= {32}
        assert all(int(one, 16) for one in ids)
