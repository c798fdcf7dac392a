"""Whatever comes in wrong: a sentence on stderr, the exit code of its kind, and nothing half-written."""

import re
from pathlib import Path

import boto3
import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from made_sizes import made_table


@pytest.fixture
def refused(store, command_line):
    """Call a command that must fail; gives what it says on stderr, once it is sure that nothing was left behind."""

    def call(name, /, *, code=2, **options):
        before = {path for path in store.rglob("*") if "mlruns" not in path.parts}
        ended, out, err = command_line(name, **options)
        assert (ended, out) == (code, ""), err
        assert err.startswith(f"{name}: ")
        assert "Traceback" not in err
        assert len(err) < 900
        after = {path for path in store.rglob("*") if "mlruns" not in path.parts}
        assert {path.name for path in after - before} <= {"mlflow.db-journal", "studies"}
        assert not MlflowClient().search_registered_models()
        runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
        assert {run.info.status for run in runs} <= {"FAILED"}
        return err

    return call


COMMANDS = ("train", "tune")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_that_is_not_there_is_named(store, write_use_case, refused, command):
    file = write_use_case(store)
    (store / "sizes.csv").rename(store / "size.csv")
    assert "There is no file or folder" in (said := refused(command, config=file))
    assert "did you mean 'size.csv'?" in said


def test_seal_names_a_folder_that_is_not_there(store, write_use_case, refused):
    assert "there is no such folder" in refused("seal", config=write_use_case(store), folder="prediction")


def test_init_names_a_table_that_is_not_there(refused):
    assert "There is no file or folder" in refused("init", data="absent.csv", target="y", out="new/a.yaml")


@pytest.mark.parametrize("command", [*COMMANDS, "promote", "score", "main"])
def test_a_settings_file_that_is_not_there_is_named(refused, command):
    said = refused(command, config="flight-late")
    assert "There is no settings file 'flight-late'" in said
    assert "Did you mean 'flights-late'?" in said


@pytest.mark.parametrize("command", [*COMMANDS, "promote", "score", "main"])
def test_a_typo_in_the_settings_is_named_with_the_nearest_key(store, write_use_case, refused, command):
    file = write_use_case(store, tunning={"trials": 3})
    assert f"{file}: unknown key 'tunning': did you mean 'tuning'?" in refused(command, config=file)


@pytest.mark.parametrize("content", ["", "size,count,colour,hour,outcome\n"])
@pytest.mark.parametrize("command", [*COMMANDS, "init"])
def test_an_empty_table_is_said_to_be_empty(store, write_use_case, refused, content, command):
    file = write_use_case(store)
    (store / "sizes.csv").write_text(content)
    options = {"data": "sizes.csv", "target": "outcome", "out": "a.yaml"} if command == "init" else {"config": file}
    assert re.search(r"the file is empty|no row below it", refused(command, **options))


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize(
    ("target", "said"),
    [(None, "there is no column 'outcome'"), ("yes", "'yes' in all|always 'yes'"), ("", "missing in all")],
)
def test_a_target_that_is_absent_constant_or_missing_is_named(store, write_use_case, refused, target, said, time):
    table = made_table().drop(columns="outcome")
    table = table if target is None else table.assign(outcome=target)
    assert re.search(said, refused("train", config=write_use_case(store, table=table, time=time)))


@pytest.mark.parametrize("target", [None, "yes", ""])
def test_init_refuses_the_same_targets(store, refused, target):
    table = made_table().drop(columns="outcome")
    table = table if target is None else table.assign(outcome=target)
    table.to_csv(store / "t.csv", index=False)
    said = refused("init", data="t.csv", target="outcome", out="a.yaml")
    assert re.search("no column 'outcome'|'yes' in every row|missing in all 400 rows", said)


@pytest.mark.parametrize("command", COMMANDS)
def test_one_class_in_a_fold_names_the_fold_and_its_time(store, write_use_case, refused, command):
    late = made_table().assign(outcome=["no"] * 200 + ["yes", "no"] * 100)
    said = refused(command, config=write_use_case(store, table=late))
    assert re.search(r"Fold 1 of \d \(2024-01-0.*\)", said)
    assert "class" in said


def test_too_few_of_a_class_for_shuffled_folds_is_said(store, write_use_case, refused):
    rare = made_table().assign(outcome=["yes"] * 2 + ["no"] * 398)
    assert "class" in refused("train", config=write_use_case(store, table=rare, time=False))


@pytest.mark.parametrize("command", ["train", "init"])
def test_columns_of_one_name_are_named(store, write_use_case, refused, command):
    file = write_use_case(store)
    text = (store / "sizes.csv").read_text()
    (store / "sizes.csv").write_text(text.replace("count", "size", 1))
    options = {"data": "sizes.csv", "target": "outcome", "out": "a.yaml"} if command == "init" else {"config": file}
    assert "more than one column is named 'size'" in refused(command, **options)


@pytest.mark.parametrize("command", ["train", "init"])
def test_a_time_that_does_not_parse_names_the_rows(store, write_use_case, refused, command):
    table = made_table()
    table.loc[[3, 9], "hour"] = ["yesterday", "2024-13-45"]
    file = write_use_case(store, table=table)
    options = {"data": "sizes.csv", "target": "outcome", "time": "hour", "out": "a.yaml"}
    said = refused(command, **(options if command == "init" else {"config": file}))
    assert ("row 4: 'yesterday'" in said) is (command == "train")  # init takes a word for a missing value
    assert "row 10: '2024-13-45'" in said


ACCOUNT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def account(monkeypatch, tmp_path):
    for name, value in {**ACCOUNT, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    yield
    server.stop()


@pytest.mark.usefixtures("account")
def test_a_bucket_that_is_absent_refuses_or_cannot_be_reached_is_named(store, write_use_case, refused, monkeypatch):
    file = write_use_case(store, source={"path": "s3://nowhere/t.csv"})
    assert "there is no bucket 'nowhere'" in refused("train", config=file)
    assert "there is no bucket 'nowhere'" in refused("init", data="s3://nowhere/t.csv", target="y", out="a.yaml")
    boto3.client("s3").create_bucket(Bucket="closed")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "endpoint does not answer" in refused("init", data="s3://closed/t.csv", target="y", out="a.yaml")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials for S3" in refused("train", config=file)


@pytest.mark.usefixtures("account")
def test_a_bucket_that_refuses_says_so(store, write_use_case, refused, monkeypatch):
    from afterfit.data import s3

    class Refusing:
        def __getattr__(self, name):
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "AccessDenied"}}, name)

    monkeypatch.setattr(s3, "client", Refusing)
    said = refused("train", config=write_use_case(store, source={"path": "s3://closed/t.csv"}))
    assert "S3 refused" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("address", ["sqlite:////nowhere/at/all.db", "mysql+nodriver://u:hunter2@127.0.0.1:9/d"])
def test_a_database_that_is_down_is_a_sentence_without_the_password(store, write_use_case, refused, address):
    file = write_use_case(store, source={"sql": address, "query": "select * from t"})
    assert "hunter2" not in (said := refused("train", config=file))
    assert address.split(":")[0].split("+")[0] in said


UNWRITABLE = ("file/scores.parquet", "/proc/nothing/here.parquet", "/proc/scores.parquet", "folder")


@pytest.fixture
def obstacles(store):
    (store / "file").write_text("in place of a folder")
    (store / "folder").mkdir()


@pytest.mark.parametrize("place", UNWRITABLE)
@pytest.mark.usefixtures("obstacles")
def test_init_refuses_a_place_that_cannot_be_written(store, refused, place):
    made_table().to_csv(store / "t.csv", index=False)
    said = refused("init", data="t.csv", target="outcome", out=place)
    assert re.search("cannot be written|is a folder|exists already", said)


@pytest.mark.parametrize("place", UNWRITABLE)
@pytest.mark.usefixtures("obstacles")
def test_a_place_for_the_json_that_cannot_be_written_is_refused_before_the_work(refused, place):
    assert re.search("--json '.*' (cannot be written|is a folder)", refused("train", config="flights-late", json=place))


@pytest.mark.parametrize("studies", ["file", "/proc/studies"])
@pytest.mark.usefixtures("obstacles")
def test_a_folder_of_studies_that_cannot_be_written_is_refused(store, write_use_case, refused, studies):
    assert "cannot be written" in refused("tune", config=write_use_case(store), studies=studies)


@pytest.mark.usefixtures("obstacles")
def test_scores_that_cannot_be_written_are_refused_and_no_part_is_left(store, write_use_case, command_line):
    file = write_use_case(store)
    assert command_line("train", config=file, builder="linear")[0] == 0
    for place in UNWRITABLE:
        code, out, err = command_line("score", config=file, version="1", out=place)
        assert (code, out) == (2, ""), err
        assert re.search("cannot be written|is a folder", err)
    (store / "sizes.csv").write_text((store / "sizes.csv").read_text() + "2024-02-01 00:00,1.0,2,red,maybe\n")
    code, _, err = command_line("score", config=file, version="1", out="scores.parquet")
    assert code == 2
    assert "'maybe'" in err
    assert not list(store.glob("scores.parquet*"))
    assert "no version 'production'. Versions: 1; aliases: none" in command_line("score", config=file)[2]


def test_artifacts_that_cannot_be_written_are_a_sentence_and_register_nothing(store, write_use_case, refused):
    (store / "mlruns").write_text("a file in place of the folder")
    assert "cannot read or write its files" in refused("train", code=1, config=write_use_case(store))


@pytest.mark.parametrize("name", ["late flights!", "a/b", "a:b", "-x", "../up", "é", "x" * 200, "a'b"])
def test_a_model_name_with_odd_characters_is_refused(store, write_use_case, refused, name):
    file = write_use_case(store)
    settings = {**yaml.safe_load(file.read_text()), "name": name}
    file.write_text(yaml.safe_dump(settings))
    assert "name:" in refused("train", config=file)
    table = store / "sizes.csv"
    said = refused("init", data=table, target="outcome", name=name, out="a.yaml") if name[0] != "-" else "would do"
    assert "would do" in said


def test_init_says_which_words_in_the_time_column_count_as_missing(store, command_line):
    table = made_table()
    table.loc[[3, 9], "hour"] = "not yet"
    table.to_csv(store / "t.csv", index=False)
    code, out, err = command_line("init", data="t.csv", target="outcome", time="hour", out="a.yaml")
    assert code == 0, err
    assert "hour: 'not yet' counts as missing (it is no time: rows without one are left out)" in out


def test_a_file_with_an_odd_name_gives_a_plain_model_name(store, command_line):
    made_table().to_csv(store / "späte Flüge (2024).csv", index=False)
    code, out, err = command_line("init", data="späte Flüge (2024).csv", target="outcome", out="a.yaml")
    assert code == 0, err
    assert yaml.safe_load(Path("a.yaml").read_text())["name"] == "sp-te-Fl-ge-2024"
    assert "existing" not in out
    code, _, err = command_line("init", data="späte Flüge (2024).csv", target="outcome", out="a.yaml")
    assert code == 2
    assert "exists already and is not overwritten" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": -1}, "--trials must be 0 .* not -1"),
        ({"seconds": "nan"}, "--seconds must be 0 .* not nan"),
        ({"seconds": -2}, "--seconds must be 0"),
    ],
)
def test_limits_of_the_search_that_make_no_sense_are_refused(store, write_use_case, refused, options, said):
    assert re.search(said, refused("tune", config=write_use_case(store), **options))


@pytest.mark.parametrize("options", [{"trials": "many"}, {"trials": 1.5}, {"seconds": "long"}, {"nonsense": 1}])
def test_options_of_the_wrong_type_are_wrong_usage(command_line, capsys, options):
    with pytest.raises(SystemExit) as ended:
        command_line("tune", **options)
    assert ended.value.code == 2
    assert "tune: error:" in capsys.readouterr().err


def test_a_loop_of_fewer_than_no_rounds_is_refused_before_its_first_look(refused):
    assert "--rounds must be 0" in refused("loop", config="flights-late", rounds=-2)


def test_promote_says_what_is_missing(store, write_use_case, refused):
    file = write_use_case(store)
    assert "no registered model 'sizes': train one first" in refused("promote", config=file)
    assert "--to must be staging or production, not 'prod'" in refused("promote", config=file, to="prod")


def test_a_builder_that_does_not_exist_or_takes_other_parameters_is_named(store, write_use_case, refused):
    file = write_use_case(store, candidates=[{"builder": "linear", "params": {"depth": 3}}])
    assert "There is no builder 'linaer'" in refused("train", config=file, builder="linaer")
    assert "must be of scikit-learn" in refused("train", config=file, builder="no.such.Class")
    assert "There is no 'NoSuchClass' in sklearn.svm" in refused(
        "train", config=file, builder="sklearn.svm.NoSuchClass"
    )
    assert "does not take these parameters" in refused("train", config=file)


@pytest.mark.parametrize("command", ["train", "tune", "promote", "score", "main"])
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db"])
def test_a_store_that_cannot_be_reached_is_a_sentence(
    store, write_use_case, command_line, monkeypatch, address, command
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    code, out, err = command_line(command, config=write_use_case(store))
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"{command}: MLflow at {re.escape(address)} cannot be reached: .*\n", err)
    assert not (store / "studies").exists()


def test_a_table_in_the_wrong_encoding_says_which_line(store, write_use_case, refused):
    file = write_use_case(store)
    text = (store / "sizes.csv").read_text().replace("red", "röt", 1)
    (store / "sizes.csv").write_bytes(text.encode("latin-1"))
    assert "not UTF-8 in line" in refused("train", config=file)


def test_a_regression_on_text_names_the_rows(store, write_use_case, refused):
    table = made_table(task="regression")
    table["outcome"] = table["outcome"].astype(object)
    table.loc[7, "outcome"] = "much"
    said = refused("train", config=write_use_case(store, table=pd.DataFrame(table), task="regression"))
    assert "row 8: 'much'" in said
