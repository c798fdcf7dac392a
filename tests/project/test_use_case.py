from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from afterfit.errors import SettingsError
from afterfit.use_case import UseCase, builtin_names, load_use_case

SMALLEST = """
name: mine
task: classification
target: late
source: {path: mine.csv}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_smallest_file_has_defaults_that_train(written, tmp_path):
    case = load_use_case(written(SMALLEST))
    assert case.candidates[0].builder == "hist_gradient_boosting"
    assert case.primary_metric == "log_loss"
    assert case.root == tmp_path.resolve()
    assert load_use_case(written(SMALLEST.replace("classification", "regression"))).primary_metric == "mae"


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_use_cases_load_by_name(name):
    case = load_use_case(name)
    assert case.name == name
    assert case.target not in case.columns.features


def test_both_flights_are_built_in():
    assert builtin_names() == ("flights-delay", "flights-late")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("taget: late", "unknown key 'taget': did you mean 'target'?"),
        ("xyz: 1", "unknown key 'xyz'; known are name, description"),
        ("split: {fold: 3}", "unknown key 'split.fold': did you mean 'folds'?"),
        ("split: {train: {first: 2013-01-01}}", "unknown key 'split.train.first'; known are start, end"),
        ("columns: {requird: [a]}", "unknown key 'columns.requird': did you mean 'required'?"),
        ("metrics: {value: {cost: {}}}", "unknown key 'metrics.value.cost': did you mean 'costs'?"),
        ("candidates: [{builder: linear, parms: {}}]", "unknown key 'candidates.0.parms': did you mean 'params'?"),
        (
            "candidates: [{builder: linear, space: {C: {low: 1, hgih: 2}}}]",
            "unknown key 'candidates.0.space.C.hgih': did you mean 'high'?",
        ),
        ("root: /tmp", "unknown key 'root'"),
        ("seed: -1", "seed: Input should be greater than or equal to 0 (it says -1)"),
        ("seed: many", "seed: "),
        ("candidates: []", "candidates is empty: name at least one builder"),
        ("candidates: [{builder: linear}, {builder: linear}]", "candidates names linear twice"),
        ("positive: [1]", "positive: must be a single value (it says [1])"),
        ("columns: {kinds: {a: numbr}}", "columns.kinds.a: Input should be 'number', 'integer'"),
        ("columns: {features: [late]}", "the target 'late' stands in columns.features"),
        ("time: late", "the target 'late' is the time column too"),
        ("split: {train: {start: 2013-01-01}}", "name the time column, or use split.share"),
        ("{time: when, split: {train: {start: 2013-02-01, end: 2013-01-01}}}", "must be before end"),
        ("{time: when, split: {train: {start: 2013}}}", "split.train.start: must be a date or time such as"),
        ("{time: when, split: {train: {start: '2013'}}}", "split.train.start: must be a date or time such as"),
        ("{time: when, split: {train: {start: soon}}}", "split.train.start: "),
        ("candidates: [{builder: linear, space: {C: {low: 2, high: 1}}}]", "low must be below high, and both given"),
        ("candidates: [{builder: linear, space: {C: {low: 2}}}]", "low must be below high, and both given"),
        ("candidates: [{builder: linear, space: {C: {low: 0, high: 1, log: true}}}]", "log needs low above 0"),
        (
            "candidates: [{builder: linear, space: {C: {low: 1, high: .inf}}}]",
            "C.high: Input should be a finite number",
        ),
        ("candidates: [{builder: linear, space: {C: {low: 1, choices: [2]}}}]", "either low and high, or choices"),
        ("metrics: {value: {costs: {1: {0: 5}}, function: a.b}}", "give either costs or function"),
    ],
)
def test_each_fault_names_file_and_key(text, said, written):
    with pytest.raises(SettingsError) as caught:
        load_use_case(written(merged(text)))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(written("")))
    assert len(str(caught.value).splitlines()) == 1


def merged(text):
    """The smallest file with some keys more, given as YAML."""
    return SMALLEST + (text.strip()[1:-1].replace(", split", "\nsplit") if text.startswith("{") else text) + "\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{path: a.csv, builtin: flights}", "source: name exactly one of builtin, path and sql, not builtin and path"),
        ("{}", "not none of them"),
        ("{sql: 'sqlite:///x.db'}", "sql (the database's address) and query go together"),
        ("{path: a.csv, query: select 1}", "go together"),
    ],
)
def test_a_source_is_one_place(source, said, written):
    with pytest.raises(SettingsError) as caught:
        load_use_case(written(SMALLEST.replace("{path: mine.csv}", source)))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["my model", "a/b", "", "ä", "-x", "x" * 101, "a:b", "../up"])
def test_a_name_that_no_registry_takes_is_refused(name, written):
    with pytest.raises(SettingsError, match=r"name: .*must be letters, digits, '-', '_' and '\.'"):
        load_use_case(written(SMALLEST.replace("name: mine", f"name: {name!r}")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: [unclosed", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        ("split: {train: {start: 2013-02-30}}", "not readable as YAML: day is out of range"),
        (SMALLEST + "target: other\n", "the key 'target' stands there twice"),
        ("", "this one is empty"),
        ("# only a comment\n", "this one is empty"),
        ("- a\n- b\n", "this one is a list"),
        ("just words", "this one is a text"),
        ("7", "this one is a single value"),
    ],
)
def test_a_file_that_is_no_settings_file_is_a_sentence(content, said, written):
    with pytest.raises(SettingsError) as caught:
        load_use_case(written(content))
    assert said in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_every_fault_is_listed_with_the_file(written):
    path = written("nme: x\ntask: clasification\nsource: {pth: a}\n")
    with pytest.raises(SettingsError) as caught:
        load_use_case(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    told = "\n".join(lines)
    for said in (
        "unknown key 'nme': did you mean 'name'?",
        "the key 'name' is required and absent",
        "the key 'target' is required and absent",
        "task: Input should be 'classification' or 'regression' (it says 'clasification')",
        "unknown key 'source.pth': did you mean 'path'?",
    ):
        assert said in told


def test_a_file_that_is_not_there_names_the_nearest_built_in_use_case(tmp_path):
    with pytest.raises(SettingsError, match=r"no settings file 'flight-late'.*Did you mean 'flights-late'\?"):
        load_use_case("flight-late")
    with pytest.raises(SettingsError, match="flights-delay, flights-late"):
        load_use_case(tmp_path / "absent.yaml")
    with pytest.raises(SettingsError, match="There is no settings file"):
        load_use_case("~nobody-of-that-name/x.yaml")
    with pytest.raises(SettingsError, match="is a folder"):
        load_use_case(tmp_path)


def test_settings_are_frozen(written):
    case = load_use_case(written(SMALLEST))
    with pytest.raises(ValidationError, match="frozen"):
        case.target = "other"
    with pytest.raises(ValidationError, match="frozen"):
        case.split.folds = 9


def test_windows_are_read_as_dates_times_and_times_with_a_zone(written):
    text = (
        "time: when\nsplit: {train: {start: 2013-01-01, end: 2013-04-01T06:30:00+02:00}, holdout: {end: '2013-05-01'}}"
    )
    split = load_use_case(written(SMALLEST + text)).split
    assert split.train.start == datetime(2013, 1, 1)  # noqa: DTZ001 - the time column's own clock
    assert split.train.end.isoformat() == "2013-04-01T04:30:00"
    assert split.holdout.start is None


def test_numbers_and_truths_keep_their_type(written):
    text = (
        "positive: true\ncolumns: {missing_marks: [-1, '?', NA]}\n"
        "candidates: [{builder: x, space: {a: {low: 1, high: 9}, b: {low: 0.5, high: 2}, c: {choices: [1, x, true]}}}]"
    )
    case = load_use_case(written(SMALLEST + text))
    space = case.candidates[0].space
    assert case.positive is True
    assert case.columns.missing_marks == ("-1", "?", "NA")
    assert (type(space["a"].low), type(space["b"].low)) == (int, float)
    assert [type(choice) for choice in space["c"].choices] == [int, str, bool]


def test_a_positive_class_is_for_classes(written):
    with pytest.raises(SettingsError, match="a regression has none"):
        load_use_case(written(SMALLEST.replace("classification", "regression") + "positive: yes"))


def test_settings_can_be_made_without_a_file():
    case = UseCase(name="a", task="regression", target="y", source={"path": "a.csv"})
    assert case.root == Path()


@pytest.mark.parametrize(
    ("line", "named"), [("key: [prediction_id]", "prediction_id"), ("time: prediction", "prediction")]
)
def test_key_and_time_have_no_name_that_an_answer_needs(tmp_path, line, named):
    (tmp_path / "t.yaml").write_text(f"name: t\ntask: regression\ntarget: y\n{line}\nsource: {{path: t.csv}}\n")
    with pytest.raises(SettingsError, match=f"'{named}' has the name .*rename that column"):
        load_use_case(tmp_path / "t.yaml")
