from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest

from afterfit.data import s3
from afterfit.data.loading import read, stream
from afterfit.errors import SourceError
from afterfit.settings import Source


@pytest.fixture
def table():
    return pd.DataFrame({"a": range(5000), "b": [f"text {i % 7}" for i in range(5000)]})


@pytest.fixture
def bucket(account, table, tmp_path):
    account.create_bucket(Bucket="sales")
    table.to_parquet(tmp_path / "t.parquet", row_group_size=500)
    account.put_object(Bucket="sales", Key="one/t.parquet", Body=(tmp_path / "t.parquet").read_bytes())
    for part in range(3):
        body = table.iloc[part * 2000 : (part + 1) * 2000].to_csv(index=False)
        account.put_object(Bucket="sales", Key=f"parts/{part}.csv", Body=body)
    account.put_object(Bucket="sales", Key="parts/_SUCCESS", Body=b"")
    account.put_object(Bucket="sales", Key="parts-of-others/x.csv", Body=b"z\n1\n")
    return "sales"


@pytest.mark.parametrize("path", ["s3://sales/one/t.parquet", "s3://sales/parts", "s3://sales/parts/"])
@pytest.mark.usefixtures("bucket")
def test_an_object_and_a_folder_on_s3_are_read_like_local_ones(table, tmp_path, path):
    pd.testing.assert_frame_equal(read(Source(path=path), tmp_path), table, check_dtype=False)


def test_parquet_on_s3_is_read_in_ranges_not_whole(bucket, account, tmp_path, monkeypatch):
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(50_000, 8)), columns=list("abcdefgh"))
    wide.to_parquet(tmp_path / "wide.parquet", row_group_size=5000)
    account.put_object(Bucket=bucket, Key="wide.parquet", Body=(tmp_path / "wide.parquet").read_bytes())
    monkeypatch.setattr(s3, "BLOCK", 4096)
    asked = []
    original = s3.RangeFile.readinto

    def counted(self, buffer):
        asked.append(original(self, buffer))
        return asked[-1]

    monkeypatch.setattr(s3.RangeFile, "readinto", counted)
    first = next(stream(Source(path="s3://sales/wide.parquet"), tmp_path, columns=["a"], rows=500))
    assert first["a"].tolist() == wide["a"].tolist()[:500]
    assert 0 < sum(asked) < s3.list_objects("s3://sales/wide.parquet")[0].size / 10


@pytest.mark.usefixtures("bucket")
def test_an_object_that_changes_while_it_is_read_is_an_error(account):
    account.put_object(Bucket="sales", Key="changing.csv", Body=b"a\n1\n")
    file = s3.RangeFile(s3.list_objects("s3://sales/changing.csv")[0])
    account.put_object(Bucket="sales", Key="changing.csv", Body=b"a\n2\n")
    with pytest.raises(SourceError, match="changed while it was read"):
        file.read(4)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://nowhere/t.csv", "there is no bucket 'nowhere'"),
        ("s3://sales/absent.csv", "no object of this name and none below it"),
        ("s3://", "names no bucket"),
        ("s3://no_such_!bucket/x.csv", "cannot be used as it is set up|there is no bucket"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_what_is_not_on_s3_is_named(tmp_path, path, message):
    with pytest.raises(SourceError, match=message):
        read(Source(path=path), tmp_path)


@pytest.mark.usefixtures("account")
def test_without_credentials_the_error_says_which_variables_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match="no credentials for S3: set AWS_ACCESS_KEY_ID"):
        read(Source(path="s3://sales/one/t.parquet"), tmp_path)


@pytest.mark.usefixtures("account")
def test_an_endpoint_that_is_down_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"endpoint does not answer .*127\.0\.0\.1:9"):
        read(Source(path="s3://sales/one/t.parquet"), tmp_path)


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@pytest.mark.usefixtures("account")
def test_a_bucket_that_refuses_is_named_and_no_secret_is(tmp_path, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(
            SourceError, match=r"S3 refused \(AccessDenied\): .* may not read the bucket 'closed'"
        ) as caught:
            read(Source(path="s3://closed/t.csv"), tmp_path)
        server.shutdown()
    assert "hunter2" not in str(caught.value)
