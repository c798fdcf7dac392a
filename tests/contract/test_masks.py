"""Categories of private columns: known again by their hashes, and nowhere as they are."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.contract.contract import Contract, learn
from afterfit.contract.encoder import Encoder, fit_encoder
from afterfit.contract.masks import mask_of
from afterfit.errors import SettingsError
from afterfit.settings import SALT

SECRET = "pepper-0-1-2-3-4-5"
ALIKE = ["1", "1.0", "01", "1.10", "1.1", "true", "True", "yes", "0", "2024-01-01", "-0.0", "17.0", "17"]
"""Texts that other types stand for."""
NOT_TEXT = st.sampled_from([1, 1.0, 1.1, True, False, 0, -0.0, 17, pd.Timestamp("2024-01-01"), 2.5])
TEXTS = st.one_of(st.sampled_from(ALIKE), NOT_TEXT, st.text(max_size=20), st.integers(), st.none(), st.just("\ud800"))


@pytest.fixture(autouse=True)
def known_secret(monkeypatch):
    monkeypatch.setenv(SALT, SECRET)


def learnt(values, *, private):
    frame = pd.DataFrame({"c": pd.Series(values, dtype=object), "n": np.arange(len(values), dtype=float)})
    return learn(frame, kinds={"c": "category"}, private=["c"] if private else [], mask=mask_of("sizes"))


def codes(contract, values):
    """The category of each value as the encoder sees it, by all ways into a contract: they give the same."""
    frame = pd.DataFrame({"c": pd.Series(values, dtype=object)})
    by_frame = contract.check_frame(frame).values["c"].tolist()
    by_column = contract.check_columns({"c": values}, len(values)).values["c"].tolist()
    by_row = [contract.check_row({"c": value}).values[0] for value in values]
    assert by_frame == by_column == by_row
    return by_frame


@given(st.lists(TEXTS, min_size=1, max_size=30), st.lists(TEXTS, max_size=10))
def test_a_private_category_is_known_again_just_where_a_plain_one_is(trained, more):
    plain, private = learnt(trained, private=False), learnt(trained, private=True)
    private = Contract.from_json(private.to_json())
    values = [*trained, *more]
    expected, found = codes(plain, values), codes(private, values)
    assert [code < 0 for code in found] == [code < 0 for code in expected]
    pairs = set(zip(expected, found, strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert len(plain.columns[0].categories) == len(private.columns[0].categories)


@pytest.mark.parametrize("secret", [SECRET, None])
def test_no_file_has_a_private_category_s_text(monkeypatch, secret):
    if secret is None:
        monkeypatch.delenv(SALT)
    values = ["123-45-6789"] * 30 + ["987-65-4321"] * 40 + ["555-55-5555"]
    contract = learnt(values, private=True)
    checked = contract.check_frame(pd.DataFrame({"c": values, "n": 0.0}))
    encoder = fit_encoder(contract, checked).without_rare_private()
    saved = json.dumps(encoder.to_dict())
    assert not [value for value in set(values) if value in saved]
    assert len(encoder.contract.columns[0].categories) == 2  # and nothing at all of what has no code of its own
    again = Encoder.from_dict(json.loads(saved))
    rows = [again.encode_row(again.contract.check_row({"c": value, "n": 0.0}))[0] for value in [*values, "new"]]
    assert rows == [1.0] * 30 + [0.0] * 40 + [2.0] * 2


def test_the_hashes_say_nothing_without_the_secret(monkeypatch):
    by_secret = []
    for secret in (SECRET, "pepper-7-8-9"):
        monkeypatch.setenv(SALT, secret)
        by_secret.append(learnt(["a", "b"], private=True).columns[0].categories)
    assert set(by_secret[0]).isdisjoint(by_secret[1])
    assert SECRET not in learnt(["a"], private=True).to_json()


def test_one_value_has_another_hash_in_each_column_and_use_case():
    frame = pd.DataFrame({"c": ["a"], "d": ["a"]})
    hashes = [
        column.categories[0]
        for name in ("sizes", "other")
        for column in learn(frame, private=["c", "d"], mask=mask_of(name)).columns
    ]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize(("secret", "came"), [(None, "is not set"), ("pepper-4-5-6", "is another one")])
def test_a_version_without_its_secret_is_refused_with_a_sentence(monkeypatch, secret, came):
    saved = learnt(["a"], private=True).to_json()
    monkeypatch.setenv(SALT, secret) if secret else monkeypatch.delenv(SALT)
    with pytest.raises(SettingsError, match=f"private columns by the secret in {SALT}, which {came} here"):
        Contract.from_json(saved)


def test_a_contract_of_an_older_release_keeps_its_private_categories_as_they_were():
    saved = learnt(["a", "b", "b"], private=False).to_dict()
    saved["columns"][0]["private"] = True
    assert "mask" not in saved["columns"][0]
    contract = Contract.from_dict(saved)
    assert codes(contract, ["a", "b", "new"]) == [1, 0, 2]
    assert contract.check_row({"c": "new", "n": 99.0}).warnings == [
        {"column": "n", "code": "out_of_range", "value": 99.0}
    ]


@pytest.mark.parametrize("kind", ["number", "integer", "datetime"])
def test_no_range_of_a_private_column_is_learnt_or_told(kind):
    values = ["2024-01-01", "2024-01-31"] if kind == "datetime" else [421370, 987654]
    frame = pd.DataFrame({"c": values})
    contract = learn(frame, kinds={"c": kind}, private=["c"])
    saved = json.dumps(contract.to_dict())
    assert not [value for value in ("2024", "421370", "987654") if value in saved]
    for value in [*values, 5, 10_000_000] if kind != "datetime" else [*values, "1999-01-01"]:
        assert contract.check_row({"c": value}).warnings == []
        assert not contract.check_frame(pd.DataFrame({"c": [value]})).issues
