"""The object store: bytes by key, hash-checked, patient with thin links and quick to say it is gone."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    SSLError,
)
from urllib3.exceptions import HTTPError as BrokenAnswerError

from model.errors import (
    ConfigError,
    IntegrityError,
    ObjectMissingError,
    PackageError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
)
from tasks.files import sha256_bytes
from tasks.seal import NoSeals, Seals
from tasks.settings import Environment
from tasks.trusted_ca import tls_mend

_MIB = 1 << 20
_CHUNK_BYTES = 4096  # the most that a break takes from a download
_PAGE_KEYS = 1000
_READ_S, _PROBE_READ_S = 60, 6  # seconds without a byte
_CONNECT_S, _PROBE_CONNECT_S = 20, 5  # also the most for every 128 KiB that are sent
_ATTEMPTS, _PROBE_ATTEMPTS = 3, 2  # with growing pauses
_BREAKS_MAX = 4  # of all attempts together before a request is given up, though the store answers in between
_STALLS_MAX = 5  # breaks in a row without one new byte before a download is given up
_TRANSFER = TransferConfig(multipart_threshold=8 * _MIB, multipart_chunksize=8 * _MIB, max_concurrency=2)
_PAYLOAD = "payload-sha256"
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_DENIED = {
    "401",
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_FULL = {"XMinioStorageFull", "StorageFull", "InsufficientStorage", "QuotaExceeded"}
_BROKEN = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, BrokenAnswerError)
_FAULTS = (
    ClientError,
    BotoCoreError,
    BrokenAnswerError,
)  # botocore lets the last pass where a refusal breaks off

T = TypeVar("T")


@dataclass(frozen=True)
class ObjectInfo:
    """One line of a listing."""

    key: str
    size: int
    """bytes"""
    modified: datetime
    """by the store's clock"""


class Store:
    """One bucket of an S3-compatible store; safe to share between threads.

    A first request with short time-outs asks whether anybody answers, so that a dead endpoint is reported
    in about ten seconds while a slow one may take a minute per answer. So does one after a link that broke in
    every attempt: while it is answered, the request is made again, a bounded number of times.

    Args:
        env: where the store is, and who we are there.
    """

    def __init__(self, env: Environment) -> None:
        self.bucket = env.s3_bucket
        self.endpoint = _shown(env.s3_endpoint)
        self.bytes_sent = 0
        self.bytes_received = 0
        self.seals: Seals = NoSeals()
        self._region = env.s3_region
        self._client: Any = _client(env, _ATTEMPTS, _CONNECT_S, _READ_S)
        self._probe: Any = _client(env, _PROBE_ATTEMPTS, _PROBE_CONNECT_S, _PROBE_READ_S)
        self._answered = False
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        payload: str | None = None,
    ) -> str:
        """Store ``data`` under ``key``; what was there is replaced.

        Small objects carry an MD5, so that a store takes them whole or not at all; large ones go in parts of
        8 MiB, of which only a broken one is sent again.

        Args:
            key: the object.
            data: its whole content.
            content_type: MIME type that the store tells its readers.
            payload: sha256 of the package inside, where ``data`` wraps one.

        Returns:
            sha256 of ``data``, also kept as the object's metadata ``sha256``.

        Raises:
            StoreUnreachableError: nobody answers.
            StoreDeniedError: these credentials may not write this key.
        """
        sha256 = sha256_bytes(data)
        inside = {} if payload is None else {_PAYLOAD: payload}
        about = {"ContentType": content_type, "Metadata": {"sha256": sha256, **inside}}
        if len(data) < _TRANSFER.multipart_threshold:
            md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
            args = {"Bucket": self.bucket, "Key": key, "Body": data, "ContentMD5": md5, **about}
            self._ask(key, lambda: self._client.put_object(**args))
        else:
            self._ask(key, lambda: self._upload_parts(key, data, about))
        self._count(sent=len(data))
        return sha256

    def get(self, key: str, sha256: str | None = None, max_bytes: int | None = None) -> bytes:
        """Read an object, and compare its hash with the announced one.

        A connection that breaks is taken up again at the byte it broke at.

        Args:
            key: the object.
            sha256: the hash some record announced; the object's own metadata is checked in any case.
            max_bytes: a larger object is refused before its body is read.

        Returns:
            The object's whole content.

        Raises:
            ObjectMissingError: nothing there.
            PackageError: larger than ``max_bytes``.
            IntegrityError: the bytes are not the announced ones, or nothing was announced.
            StoreUnreachableError: nobody answers, or the link keeps breaking.
            StoreDeniedError: these credentials may not read this key.
        """
        head: dict[str, Any] = {}
        data = self._download(key, head, max_bytes)
        self._check(key, sha256_bytes(data), _announced(head), sha256)
        return data

    def exists(self, key: str) -> bool:
        """Whether there is an object under ``key``."""
        try:
            self._head(key)
        except ObjectMissingError:
            return False
        return True

    def knock(self, key: str) -> None:
        """Ask for an object and take the first answer as it comes, to learn what one may.

        Args:
            key: the object, which need not be there.

        Raises:
            StoreDeniedError: these credentials may not read this key; or, on AWS, nothing is there.
        """
        with contextlib.suppress(ObjectMissingError):
            self._ask(key, lambda: self._client.head_object(Bucket=self.bucket, Key=key))

    def sha256_of(self, key: str) -> str | None:
        """The hash announced in the object's metadata; None without object or announcement."""
        try:
            return _announced(self._head(key))
        except ObjectMissingError:
            return None

    def look(self, key: str) -> tuple[ObjectInfo, str | None] | None:
        """Size, time and announced hash of an object, without its bytes; None where there is none."""
        try:
            head = self._head(key)
        except ObjectMissingError:
            return None
        return ObjectInfo(key, head["ContentLength"], head["LastModified"]), _announced(head)

    def payload_of(self, key: str) -> str | None:
        """The announced hash of the package inside an object; of the object itself where it wraps none."""
        try:
            head = self._head(key)
        except ObjectMissingError:
            return None
        return _announced(head, _PAYLOAD) or _announced(head)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose key starts with ``prefix``, by key; empty when there are none."""

        def pages() -> list[ObjectInfo]:
            pager = self._client.get_paginator("list_objects_v2")
            options = {"Bucket": self.bucket, "Prefix": prefix, "PaginationConfig": {"PageSize": _PAGE_KEYS}}
            entries = [entry for page in pager.paginate(**options) for entry in page.get("Contents", [])]
            return [ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"]) for entry in entries]

        return sorted(self._ask(prefix, pages), key=lambda info: info.key)

    def now(self) -> datetime:
        """The store's own time, the one clock that hub and sites share.

        Returns:
            What its answer to a small request says, a refusal included: sites may not ask for the bucket everywhere.

        Raises:
            StoreError: the store does not answer, or tells no time.
        """
        answer = self._ask("", self._head_bucket)
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if told is None:
            mend = "use a store that sends the Date header HTTP asks for"
            raise StoreError("the store tells no time", self._where(""), mend)
        return parsedate_to_datetime(told)

    def _head_bucket(self) -> dict[str, Any]:
        """The answer, a refusal included."""
        try:
            answer: dict[str, Any] = self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return {**error.response}
        return answer

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        try:
            self._ask("", lambda: self._client.head_bucket(Bucket=self.bucket))
        except ObjectMissingError:
            self._ask("", self._create_bucket)

    def _create_bucket(self) -> None:
        place = {} if self._region == "us-east-1" else {"LocationConstraint": self._region}
        options = {"CreateBucketConfiguration": place} if place else {}
        try:
            self._client.create_bucket(Bucket=self.bucket, **options)
        except ClientError as error:  # another process was first
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise

    def _upload_parts(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        self._client.upload_fileobj(io.BytesIO(data), self.bucket, key, ExtraArgs=about, Config=_TRANSFER)

    def _head(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self._read(key, lambda: self._client.head_object(Bucket=self.bucket, Key=key))
        return found

    def _read(self, key: str, request: Callable[[], T], breaks_max: int = _BREAKS_MAX) -> T:
        """Make a request that reads ``key``; a refusal may mean that there is nothing.

        AWS says 403 in place of 404 to users who may not list the whole bucket, and says no reason to HEAD. A listing
        of this one key tells: refused as well, it names the reason; without the key, there is nothing there yet.
        """
        try:
            return self._ask(key, request, breaks_max)
        except StoreDeniedError:
            if self._is_listed(key):
                return self._ask(key, request, breaks_max)  # written meanwhile; else it is refused again
            raise _missing("not listed", self._where(key)) from None

    def _is_listed(self, key: str) -> bool:
        about = {"Bucket": self.bucket, "Prefix": key, "MaxKeys": 1}  # the first of all that begin with it
        answer = self._ask(key, lambda: self._client.list_objects_v2(**about))
        return key in [entry["Key"] for entry in answer.get("Contents", [])]

    def _download(self, key: str, head: dict[str, Any], max_bytes: int | None) -> bytes:
        """One request unless the link breaks; its answer but for the body comes to stand in ``head``."""
        data, stalls = bytearray(), 0
        while not head or len(data) < head["ContentLength"]:
            before, breaks_max = len(data), 1 if head else _BREAKS_MAX
            try:
                self._read(key, lambda: self._append(key, data, head, max_bytes), breaks_max)
            except StoreUnreachableError:
                stalls = 0 if len(data) > before else stalls + 1
                if not head or stalls == _STALLS_MAX:
                    raise
        return bytes(data)

    def _append(self, key: str, data: bytearray, head: dict[str, Any], max_bytes: int | None) -> None:
        """Read on from where ``data`` ends; what arrived before a break stays in ``data``."""
        onward = {"Range": f"bytes={len(data)}-", "IfMatch": head["ETag"]} if head else {}
        answer = self._client.get_object(Bucket=self.bucket, Key=key, **onward)
        body = answer.pop("Body")
        try:
            if not head:
                head |= answer
            if max_bytes is not None and head["ContentLength"] > max_bytes:
                what = f"object has {head['ContentLength']} bytes, at most {max_bytes} are accepted"
                mend = "ask its writer for a smaller one, or raise the limit"
                raise PackageError(what, self._where(key), mend)
            while (left := head["ContentLength"] - len(data)) > 0:
                chunk = body.read(min(_CHUNK_BYTES, left))
                if not chunk:
                    raise IncompleteReadError(actual_bytes=len(data), expected_bytes=head["ContentLength"])
                data += chunk
                self._count(received=len(chunk))
        finally:
            body.close()

    def _check(self, key: str, arrived: str, announced: str | None, expected: str | None) -> None:
        for promised, by in ((expected, "its record"), (announced, "its metadata")):
            if promised is not None and promised != arrived:
                what = f"bytes have sha256 {arrived[:12]}…, {by} announced {promised[:12]}…"
                raise IntegrityError(what, self._where(key), "have its writer upload it again; do not use it")
        if announced is None and expected is None:
            mend = "upload it through this program, which announces the hash"
            raise IntegrityError(
                "object announces no sha256, so nothing vouches for it", self._where(key), mend
            )

    def _ask(self, key: str, request: Callable[[], T], breaks_max: int = _BREAKS_MAX) -> T:
        breaks = 0
        while True:
            reached = False
            try:
                if not self._answered:
                    self._await_any_answer()
                reached = True
                return request()
            except _FAULTS as error:
                breaks += 1
                translated = self._translated(error, key)
                if not (reached and isinstance(error, _BROKEN)) or breaks == breaks_max:
                    raise translated from error

    def _await_any_answer(self) -> None:
        """Any HTTP answer will do, a refusal included; silence raises within about ten seconds."""
        try:
            self._probe.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                raise
        self._answered = True

    def _translated(self, error: Exception, key: str) -> StoreError:
        where = self._where(key)
        if isinstance(error, ClientError):
            return _answer_error(error, where)
        if isinstance(error, SSLError):
            return StoreUnreachableError(f"no trusted TLS connection: {error}", where, tls_mend(str(error)))
        if isinstance(error, _BROKEN):
            self._answered = False
            mend = "check CARDIOFED_S3_ENDPOINT, the network and the proxy; then run again, it continues"
            return StoreUnreachableError(f"the store does not answer ({type(error).__name__})", where, mend)
        return StoreError(f"request failed: {error}", where, "check the CARDIOFED_S3_… variables")

    def _where(self, key: str) -> str:
        return f"{self.endpoint}/{self.bucket}/{key}"

    def _count(self, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self.bytes_sent += sent
            self.bytes_received += received


def _announced(head: dict[str, Any], name: str = "sha256") -> str | None:
    """A hash that came with the object; proxies may change the case of header names."""
    about = {name.lower(): value for name, value in head["Metadata"].items()}
    return about.get(name) or None


def _client(env: Environment, attempts: int, connect_timeout_s: int, read_timeout_s: int) -> Any:
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=16,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=env.s3_endpoint,
            aws_access_key_id=env.s3_access_key,
            aws_secret_access_key=env.s3_secret_key.get_secret_value(),
            region_name=env.s3_region,
            config=config,
            verify=str(env.ca_bundle) if env.ca_bundle else None,
        )
    except ValueError as error:
        what = f"no usable endpoint: {_shown(env.s3_endpoint)!r}"
        raise ConfigError(what, "CARDIOFED_S3_ENDPOINT", "write it as https://host:port") from error


def _answer_error(error: ClientError, where: str) -> StoreError:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _MISSING:
        return _missing(code, where)
    if code in _DENIED or status in (401, 403):
        mend = "check CARDIOFED_S3_ACCESS_KEY, CARDIOFED_S3_SECRET_KEY, this user's policy and the clock"
        return StoreDeniedError(f"the store refused ({code})", where, mend)
    if code in ("412", "PreconditionFailed"):
        return IntegrityError("the object was replaced while it was read", where, "run again")
    if status == 507 or code in _FULL:
        mend = "make room on its disk or raise its quota, then run again"
        return StoreUnreachableError(f"the store is full ({code})", where, mend)
    if status >= 500:
        mend = "look into its log, and whether its disk or quota is full: many stores say no more of that"
        return StoreUnreachableError(f"the store answers with an error ({code})", where, mend)
    mend = "check CARDIOFED_S3_BUCKET (3 to 63 of a-z, 0-9, '-' and '.') and the store's log"
    return StoreError(f"the store refused ({code})", where, mend)


def _missing(code: str, where: str) -> ObjectMissingError:
    return ObjectMissingError(
        f"nothing there ({code})", where, "check the key, and whether its writer is done"
    )


def _shown(endpoint: str) -> str:
    """The endpoint without user and password, should it hold them."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
