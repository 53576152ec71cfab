"""TLS for a federation on one machine: a CA of its own, trusted by each of its machines' folders."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from infra.process import PID_FILE, stop
from infra.tls import Certificate, server_certificate
from tasks.files import write_atomic
from tasks.homes import HOME_FILE, read_home
from tasks.trusted_ca import CA_FILE


def have_tls(root: Path, machines: Sequence[Path], wanted: bool | None) -> Certificate | None:
    """Have the servers' certificate, and its CA in every machine's folder; or take both away.

    Args:
        root: the federation's folder; Prefect's clients that are nobody's machine find the CA there.
        machines: the folders of hub and hospitals.
        wanted: None for as it was; a new federation has none.

    Returns:
        The certificate; None without TLS.
    """
    folder = root / "tls"
    if not (folder.exists() if wanted is None else wanted):
        shutil.rmtree(folder, ignore_errors=True)
        for machine in (root, *machines):
            (machine / CA_FILE).unlink(missing_ok=True)
        return None
    certificate = server_certificate(folder)
    for machine in (root, *machines):
        write_atomic(machine / CA_FILE, certificate.ca.read_bytes())
    return certificate


def end_strayed_workers(machines: Sequence[Path], store_url: str, prefect_url: str) -> None:
    """End the workers of machines whose servers have moved; they would go on asking at the old address.

    Args:
        machines: the folders of hub and hospitals.
        store_url: where the store is now.
        prefect_url: where Prefect's API is now.
    """
    for machine in machines:
        if not (machine / HOME_FILE).exists():
            continue
        known = read_home(machine)
        if (known.s3_endpoint, known.prefect_api_url) != (store_url, prefect_url):
            stop(machine / "worker" / PID_FILE)
