"""Certificates of the endpoints, and connections without any."""

from __future__ import annotations

from tasks.doctor.clock import local_now
from tasks.doctor.endpoint import Answer, ask_store, is_loopback, shown
from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.homes import Home
from tasks.workspace import Workspace

WARNING_DAYS = 30
_RENEW = "have the hub renew it"


@named("S3 certificate")
def store_certificate(ws: Workspace, home: Home) -> Finding:
    """Until when the store's certificate holds."""
    return certificate(ask_store(home), home.s3_endpoint)


def certificate(answer: Answer, url: str) -> Finding:
    """Until when an endpoint's certificate holds.

    Expired is failed; less than 30 days left is a warning, and so is plain http to another machine.

    Args:
        answer: of the endpoint.
        url: its address.

    Returns:
        A finding without a name.
    """
    expires = answer.expires
    if expires is None:
        if is_loopback(url):
            return well("none: plain http inside this machine")
        return doubtful(f"none: plain http to {shown(url)} can be read on the way", "put TLS before it")
    days = (expires - local_now()).total_seconds() / 86_400
    if days < 0:
        return broken(f"expired on {expires:%Y-%m-%d}", _RENEW)
    if days < WARNING_DAYS:
        return doubtful(f"expires on {expires:%Y-%m-%d}, in {days:.0f} days", _RENEW)
    return well(f"valid until {expires:%Y-%m-%d}")
