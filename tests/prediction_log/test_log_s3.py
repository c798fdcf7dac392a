"""Sealed parts on S3: the same log; with S3 away answers wait in their spools."""

import pytest

from afterfit import prediction_log
from afterfit.errors import LogError
from afterfit.prediction_log import sealing
from made_log import HOUR, NOON, entry, ids, outcome, read


@pytest.fixture
def log(account, tmp_path):
    bucket = f"log-{tmp_path.name.replace('_', '-').lower()}"[:60].strip("-")
    account.create_bucket(Bucket=bucket)
    return prediction_log.PredictionLog("sizes", tmp_path, f"s3://{bucket}/deep/log/", keep_days=1)


def test_a_log_on_s3_is_sealed_joined_read_and_cleared_like_one_in_a_folder(log):
    spool = log.spool()
    for i in range(5):
        spool.write([entry(f"a{i}"), entry(f"b{i}", NOON - 24 * HOUR), entry(f"c{i}", NOON - 72 * HOUR)])
        spool.write_outcomes([outcome(f"a{i}", bool(i % 2))])
        prediction_log.seal(log, [spool])
    assert len(ids(log)) == 15
    assert read(log, columns=["prediction_id", "outcome"]).num_rows == 15
    assert prediction_log.unknown_ids(log, ["a1", "b4", "nobody"]) == {"nobody"}
    assert prediction_log.unknown_ids(log, ["a1", "b4", "nobody"]) == {"nobody"}  # out of the cache
    assert sealing.retain(log.store, 1, "2026-11-23") == 10
    later = NOON / 1e6 + 200_000_000
    for _ in range(2):
        sealing.join(log.folder, log.store, "sizes", "2026-11-24", later)
    assert [part.file.startswith("joined-") for part in log.store.parts("answers")] == [True, True]
    assert ids(log) == [*(f"a{i}" for i in range(5)), *(f"b{i}" for i in range(5))]
    assert [row["outcome"] for row in read(log).to_pylist() if row["prediction_id"] == "a3"] == [True]
    spool.close()


def test_with_s3_away_nothing_is_lost_and_sealing_goes_on_when_it_is_back(log, monkeypatch):
    spool = log.spool()
    spool.write([entry("a")])
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(LogError, match="endpoint does not answer"):
            prediction_log.seal(log, [spool])
        spool.write([entry("b")])
        assert spool.backlog == 2
    prediction_log.seal(log, [spool])
    assert ids(log) == ["a", "b"]
    assert spool.backlog == 0
    spool.close()


def test_a_damaged_part_on_s3_is_named_and_the_rest_is_read(log, account):
    spool = log.spool()
    spool.write([entry("a"), entry("b", NOON - 24 * HOUR)])
    prediction_log.seal(log, [spool])
    spool.close()
    part = log.store.parts("answers")[0]
    bucket, _, key = log.store.place(part).removeprefix("s3://").partition("/")
    content = account.get_object(Bucket=bucket, Key=key)["Body"].read()
    for broken in (b"", content[:-9], b"x" * len(content), content[:100] + b"\0" + content[101:]):
        account.put_object(Bucket=bucket, Key=key, Body=broken)
        with pytest.raises(LogError, match=key):
            ids(log)
        with prediction_log.skipping(True) as left_out:
            assert ids(log) == ["a"]
        assert [key in sentence for sentence in left_out] == [True]
    account.put_object(Bucket=bucket, Key=key, Body=content)
    account.put_object(Bucket=bucket, Key=log.store.place(part.index()).partition("/")[2].partition("/")[2], Body=b"x")
    assert prediction_log.unknown_ids(log, ["a", "b", "nobody"]) == {"nobody"}
