"""One plain HTTP request: whether anybody answers, how fast, at what time of theirs, with which certificate."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from model.errors import CardiofedError
from tasks.homes import Home
from tasks.trusted_ca import tls_mend, trusted_for_store

_ANSWER_S = 20.0  # links are thin
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME


@dataclass(frozen=True)
class Answer:
    """What came back; refusals are answers, too.

    Attributes:
        status: HTTP's.
        took_ms: for the whole request, connecting included.
        date: the server's own time; None when it tells none.
        expires: when its certificate does; None without TLS.
        body: at most 1 MB.
    """

    status: int
    took_ms: float
    date: datetime | None
    expires: datetime | None
    body: bytes


def ask(
    url: str, ca_file: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] = {}
) -> Answer:
    """Send one request; loopback is never reached through a proxy, other hosts as the environment says.

    The certificate must be trusted, but may have expired: then everything else can still be told.

    Args:
        url: http or https.
        ca_file: the certificates to trust.
        method: HTTP's.
        body: JSON.
        headers: further ones.

    Returns:
        The answer, whatever its status.

    Raises:
        CardiofedError: nobody answers, or the certificate is not trusted.
    """
    seen: dict[str, Any] = {}
    proxies = ProxyHandler({}) if is_loopback(url) else ProxyHandler()
    started = time.monotonic()
    opener = build_opener(proxies, _Https(_trusting(ca_file), seen))
    try:
        about = {"Content-Type": "application/json", **headers}
        request = Request(url, data=body, headers=about, method=method)
        try:
            came = opener.open(request, timeout=_ANSWER_S)
        except HTTPError as refusal:
            came = refusal
        with came:
            data = came.read(1_000_000)
    except (OSError, HTTPException, ValueError) as error:
        raise _unanswered(error, url) from error
    took_ms = (time.monotonic() - started) * 1000
    return Answer(came.status or 0, took_ms, _date(came.headers["Date"]), _expiry(seen), data)


def ask_store(home: Home) -> Answer:
    """Knock at the bucket without a signature, trusting the certificates that the store's client trusts.

    Args:
        home: says where the store is.

    Returns:
        The answer; for a closed bucket a refusal.

    Raises:
        CardiofedError: nobody answers, or the certificate is not trusted.
    """
    return ask(f"{home.s3_endpoint.rstrip('/')}/{home.s3_bucket}", trusted_for_store(), "HEAD")


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(url: str) -> str:
    """Scheme and host of an address, without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else repr(url)


class _Connection(HTTPSConnection):
    """Notes the certificate it is shown."""

    def __init__(self, host: str, seen: dict[str, Any], **options: Any) -> None:
        super().__init__(host, **options)
        self._seen = seen

    def connect(self) -> None:
        super().connect()
        self._seen.update(self.sock.getpeercert() or {})


class _Https(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext, seen: dict[str, Any]) -> None:
        super().__init__()
        self._trust, self._seen = context, seen

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(partial(_Connection, seen=self._seen, context=self._trust), req)


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        mend = "correct ca.crt in the machine's folder, CARDIOFED_CA_BUNDLE, AWS_CA_BUNDLE or SSL_CERT_FILE"
        raise CardiofedError("the file of trusted certificates cannot be read", ca_file, mend) from error
    context.verify_flags |= _NO_CHECK_TIME
    return context


def _date(told: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(told) if told else None
    except ValueError:
        return None


def _expiry(certificate: dict[str, Any]) -> datetime | None:
    until = certificate.get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC) if until else None


def _unanswered(error: Exception, url: str) -> CardiofedError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        what = f"the certificate of {shown(url)} is not trusted: {reason.verify_message}"
        return CardiofedError(what, url, tls_mend(reason.verify_message))
    why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    mend = "check the address in home.json, the network, the firewall and the proxy"
    return CardiofedError(f"{shown(url)} does not answer: {why}", url, mend)
