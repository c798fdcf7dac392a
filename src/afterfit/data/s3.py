"""Objects on S3 as files: listing, and seekable reading by ranges. Credentials and endpoint are those of boto3."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as EndpointError,
)

from afterfit.errors import SourceError

BLOCK = 8 * 2**20
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_CHANGED = {"412", "PreconditionFailed"}


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object: where it is, its size in bytes, and the etag of the content that was listed."""

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def address(self) -> str:
        """The object's s3:// address."""
        return f"s3://{self.bucket}/{self.key}"


def client() -> Any:
    """A boto3 client for the present environment variables; it gives up after three attempts."""
    return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=4)
def _client(_environment: tuple[tuple[str, str], ...]) -> Any:
    # a client is slow to make and may be shared by threads, so there is one for each set of credentials;
    # the default session would keep the credentials that it had first
    retries = {"mode": "standard", "total_max_attempts": 3}
    with translate_errors("s3://", ""):
        return boto3.session.Session().client("s3", config=Config(connect_timeout=5, read_timeout=60, retries=retries))


def bucket_and_key(address: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an s3:// address.

    Raises:
        SourceError: the address names no bucket.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise SourceError(f"'{address}' names no bucket: write s3://bucket/key, or s3://bucket/folder")
    return bucket, key


def list_objects(address: str) -> list[S3Object]:
    """The object at the address, or else all objects in the folder at the address, by key.

    Raises:
        SourceError: bucket or key absent, access refused, no credentials, or the endpoint does not answer.
    """
    bucket, key = bucket_and_key(address)
    objects = objects_below(address)
    exact = [stored for stored in objects if stored.key == key]
    folder = key if key.endswith("/") or not key else f"{key}/"
    inside = [stored for stored in objects if stored.key.startswith(folder) and not stored.key.endswith("/")]
    if not exact and not inside:
        raise SourceError(f"{address}: the bucket '{bucket}' has no object of this name and none below it")
    return exact or inside


def objects_below(address: str) -> list[S3Object]:
    """All objects whose key begins with that of the address, by key; there may be none.

    Raises:
        SourceError: no such bucket, access refused, no credentials, or the endpoint does not answer.
    """
    bucket, key = bucket_and_key(address)
    with translate_errors(address, bucket):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        return [
            S3Object(bucket, item["Key"], item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", ())
        ]


def put(address: str, content: bytes) -> None:
    """Write an object in one request: afterwards it is complete, or as it was before.

    Raises:
        SourceError: as in `objects_below`.
    """
    bucket, key = bucket_and_key(address)
    with translate_errors(address, bucket):
        client().put_object(Bucket=bucket, Key=key, Body=content)


def delete(address: str) -> None:
    """Remove an object; it is no error if there is none.

    Raises:
        SourceError: as in `objects_below`.
    """
    bucket, key = bucket_and_key(address)
    with translate_errors(address, bucket):
        client().delete_object(Bucket=bucket, Key=key)


def modified_at(address: str) -> float:
    """When an object was last written, in seconds since 1970 UTC.

    Raises:
        SourceError: there is no such object; otherwise as in `objects_below`.
    """
    bucket, key = bucket_and_key(address)
    with translate_errors(address, bucket):
        return float(client().head_object(Bucket=bucket, Key=key)["LastModified"].timestamp())


class RangeFile(io.RawIOBase):
    """An object as a seekable file.

    Every read is one request for a range of bytes; it is an error if the object changed after it was listed.
    """

    def __init__(self, stored: S3Object) -> None:
        super().__init__()
        self._stored = stored
        self._client = client()
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is requested."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stored.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the position on.

        Raises:
            SourceError: the object is gone, was changed, or cannot be read.
        """
        size = min(len(buffer), self._stored.size - self._position)
        if size <= 0:
            return 0
        with translate_errors(self._stored.address, self._stored.bucket):
            response = self._client.get_object(
                Bucket=self._stored.bucket,
                Key=self._stored.key,
                Range=f"bytes={self._position}-{self._position + size - 1}",
                IfMatch=self._stored.etag,
            )
            content = response["Body"].read()
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def open_object(stored: S3Object) -> io.BufferedReader:
    """The object as a buffered binary file of at most a few MiB in memory."""
    return io.BufferedReader(RangeFile(stored), BLOCK)


@contextmanager
def translate_errors(address: str, bucket: str) -> Iterator[None]:
    """Raise the errors of boto3 as one sentence each."""
    try:
        yield
    except NoCredentialsError as error:
        raise SourceError(
            f"{address}: there are no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or a profile in ~/.aws"
        ) from error
    except ClientError as error:
        raise SourceError(f"{address}: {_describe_error(error, bucket)}") from error
    except (EndpointError, HTTPClientError) as error:
        raise SourceError(
            f"{address}: the S3 endpoint does not answer ({error}): look at AWS_ENDPOINT_URL and the network"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise SourceError(f"{address}: S3 cannot be used as it is set up: {error}") from error


def _describe_error(error: ClientError, bucket: str) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return f"there is no bucket '{bucket}' at this endpoint"
    if code in _REFUSED:
        return f"S3 refused ({code}): these credentials may not read the bucket '{bucket}'"
    if code in {"404", "NoSuchKey"}:
        return "there is no such object"
    if code in _CHANGED:
        return "the object was changed while it was read: start again"
    return f"S3 answered {code}: {error}"
