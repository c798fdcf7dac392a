"""One model behind two servers: MLflow's own, with the really logged model, and ours. Their answers must be equal.

What MLflow's server does by itself before the model sees a row, and what is therefore set apart here: it drops columns
that the signature does not know, makes a column that only some rows lack a missing value, and makes one array of each
column of `instances`, in which all rows must have the same keys and values of one kind.
"""

import asyncio
import json
import math
from dataclasses import replace

import httpx
import mlflow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterfit.lifecycle.training_run import requirements
from afterfit.mlflow_store import tracking
from afterfit.model.bundle import save
from afterfit.model.version_files import code_digest
from afterfit.package import ROOT
from serving_client import JSON, asked, made_doors, made_service, reopened

NAMES = ("when", "distance", "seats", "carrier", "secret")
GOOD = {
    "when": st.sampled_from(["2024-01-03T05:00:00", "2024-01-09", "2024-01-03T05:00:00+02:00", "2031-01-01"]),
    "distance": st.floats(0, 3000) | st.integers(0, 3000),
    "seats": st.integers(0, 400),
    "carrier": st.sampled_from(["AA", "BB", "CC", "ZZ", " AA ", ""]),
    "secret": st.sampled_from(["x7", "y8", "z9"]),
}
RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["12.5", "true", "nan", "NA", "1e5", "-", "inf", "2024-02-30", "12/31/2024", "0x10", "١٢"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 3), max_size=2),
)


def row(names):
    """A row with these columns, each of which may hold rubbish; perhaps with one that nobody knows."""
    columns = {name: GOOD[name] | GOOD[name] | RUBBISH for name in names}
    return st.fixed_dictionaries(columns, optional={"other": RUBBISH})


KINDS = (
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    st.booleans(),
    st.none(),
)


@st.composite
def rows_of_one_form(draw):
    """Rows with the same columns, in each of which all values are of one kind."""
    names = draw(st.sets(st.sampled_from([*NAMES, "other"]), min_size=1).filter(lambda some: some != {"other"}))
    count = draw(st.integers(1, 4))
    columns = {}
    for name in sorted(names):
        kinds = [*KINDS, *([GOOD[name]] * 4 if name in GOOD else [])]
        columns[name] = draw(st.lists(kinds[draw(st.integers(0, len(kinds) - 1))], min_size=count, max_size=count))
    return [{name: values[k] for name, values in columns.items()} for k in range(count)]


rows_of_any_form = st.lists(
    st.sets(st.sampled_from(NAMES), min_size=1).flatmap(lambda names: row(sorted(names))),
    min_size=1,
    max_size=4,
)


def body(form, rows):
    if form == "dataframe_split":
        names = list(dict.fromkeys(name for one in rows for name in one))
        return {form: {"columns": names, "data": [[one.get(name) for name in names] for one in rows]}}
    return {form: rows}


@pytest.fixture(scope="module", params=["bundle", "regression_bundle", "multiclass_bundle"])
def both(request, shared_store, tmp_path_factory):  # noqa: ARG001 - the store is where the model is logged
    """MLflow's scoring server over the really logged model, and our doors over the same bundle."""
    from mlflow.pyfunc import scoring_server

    known, folder = request.getfixturevalue(request.param), tmp_path_factory.mktemp("both")
    manifest = replace(known.manifest, code=code_digest(ROOT))
    made = save(known.scorer, manifest, known.example, folder / "bundle")
    with mlflow.start_run(experiment_id=tracking.experiment_id("both")):
        uri = tracking.log_bundle(folder / "bundle", made, requirements(), {}).uri
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        theirs = scoring_server.init(mlflow.pyfunc.load_model(uri))
        yield theirs, made_doors(made_service(made, folder, log=False), folder)


def posted(application, text, headers=JSON):
    """MLflow's answer."""

    async def ask():
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/invocations", content=text, headers=headers)

    return asyncio.run(ask())


def answers(both, form, rows):
    """Theirs and ours."""
    theirs, doors = both
    text = json.dumps(body(form, rows)).encode()
    said, told = posted(theirs, text), asked(reopened(doors), "/invocations", text)
    assert (said.status_code, told.status_code) == (200, 200), (said.text, told.text)
    return said.json()["predictions"], told.json()["predictions"]


def plain(value):
    """A value as both servers could have seen it: 1 and 1.0, and a float without its last digits, are the same."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return float(f"{float(value):.9g}")
    return value


def compared(answer):
    """An answer without its id, and without warnings of columns that MLflow's server does not hand on."""
    notes = [note for note in answer["warnings"] if note["code"] != "unknown_column"]
    same = [(n["column"], n["code"].replace("absent_column", "missing"), plain(n["value"])) for n in notes]
    error = answer["error"] and {key: plain(value) for key, value in answer["error"].items() if key != "message"}
    numbers = {key: plain(value) for key, value in answer.items() if key not in {"prediction_id", "warnings", "error"}}
    if isinstance(answer.get("probabilities"), dict):
        numbers["probabilities"] = {key: plain(value) for key, value in answer["probabilities"].items()}
    return sorted(same, key=str), error, numbers


quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split"])
@quick
@given(rows=rows_of_any_form)
def test_both_servers_give_equal_answers_to_whatever_rows(both, form, rows):
    for said, told in zip(*answers(both, form, rows), strict=True):
        assert compared(said) == compared(told)


@pytest.mark.slow
@quick
@given(rows=rows_of_one_form())
def test_both_servers_give_equal_answers_to_instances_of_one_form(both, rows):
    for said, told in zip(*answers(both, "instances", rows), strict=True):
        assert compared(said) == compared(told)


def test_what_mlflow_s_server_refuses_and_ours_answers(both):
    theirs, doors = both
    ragged = json.dumps({"instances": [{"distance": 1.0, "seats": 2}, {"seats": 3}]}).encode()
    table = b"distance,seats\n500,120\n"
    for text, headers in [(ragged, JSON), (table, {"Content-Type": "text/csv"})]:
        assert posted(theirs, text, headers).status_code >= 400
        assert asked(reopened(doors), "/invocations", text, headers).status_code == 200
    merged = json.dumps({"instances": [{"distance": 1.0}, {"seats": 3}]}).encode()
    assert len(posted(theirs, merged).json()["predictions"]) == 1  # two rows without a common column become one
    assert len(asked(reopened(doors), "/invocations", merged).json()["predictions"]) == 2
