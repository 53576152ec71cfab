"""Which certificates this process trusts: a machine's folder may hold the CA of its federation."""

from __future__ import annotations

import os
from pathlib import Path

from botocore.httpsession import get_cert_path

from tasks.files import write_atomic

CA_FILE = "ca.crt"
"""In a machine's folder, in PEM: the CA of the store and of Prefect, where they have one of their own."""

_OURS = "CARDIOFED_CA_BUNDLE"


def trust_ca(folder: Path) -> None:
    """Trust the CA that lies in a machine's folder, in this process and in those it starts.

    Args:
        folder: the machine's own; without the file, ``CARDIOFED_CA_BUNDLE`` stays as it is.
    """
    path = folder.absolute() / CA_FILE
    if path.exists():
        os.environ[_OURS] = str(path)


def keep_ca(folder: Path) -> None:
    """Copy the CA that ``CARDIOFED_CA_BUNDLE`` names into a machine's folder, where workers and cron find it.

    Args:
        folder: the machine's own; a CA that lies there already stays.
    """
    path, named = folder.absolute() / CA_FILE, os.environ.get(_OURS)
    if named and not path.exists():
        write_atomic(path, Path(named).read_bytes())


def trusted_for_store() -> str:
    """The file of certificates that a store's is checked against."""
    return os.environ.get(_OURS) or os.environ.get("AWS_CA_BUNDLE") or str(get_cert_path(True))


def trusted_for_prefect() -> str | None:
    """The file of certificates that Prefect's is checked against; None for those that are built in."""
    named = (_OURS, "PREFECT_API_SSL_CERT_FILE", "SSL_CERT_FILE")
    return next((os.environ[name] for name in named if os.environ.get(name)), None)


def tls_mend(reason: str) -> str:
    """What to do about a TLS connection that was not made.

    Args:
        reason: the words of OpenSSL or urllib3.

    Returns:
        One sentence.
    """
    said = reason.lower()
    if "match" in said or "not valid for" in said:
        return "use the name that the certificate was made for, or have the hub make one for this name"
    if "expired" in said or "not yet valid" in said:
        return "have the hub renew the certificate, and check this machine's clock"
    if "wrong version" in said or "record layer" in said:
        return "nobody speaks TLS there: check the port, and whether the address begins with http://"
    return f"get the CA's certificate from the hub: save it as {CA_FILE} in the machine's folder, or name it in {_OURS}"
