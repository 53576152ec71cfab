"""All checks of a machine's folder, in the order in which one fault explains the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tasks.doctor.base import hub_base, site_base
from tasks.doctor.clock import clock
from tasks.doctor.data import announced_card, case_table, images
from tasks.doctor.finding import Finding
from tasks.doctor.folder import kept_secret, whole_folder
from tasks.doctor.identity import hub_registration, own_identity, site_registration
from tasks.doctor.machine import disk_space, gpu, memory
from tasks.doctor.storage import answers, foreign_keys, own_keys
from tasks.doctor.tls import store_certificate
from tasks.doctor.versions import same_versions
from tasks.homes import HUB, Home, enter_home
from tasks.privacy import keep_errors
from tasks.workspace import Workspace

Check = Callable[[Workspace, Home], Finding]

LADDER: Sequence[Check] = (answers, store_certificate, clock, own_keys)
"""Of the store: where one fails, the next ones would only say it again."""
OF_HUB: Sequence[Check] = (hub_registration, hub_base, same_versions)
OF_SITE: Sequence[Check] = (foreign_keys, site_registration, announced_card, site_base, same_versions)


def examine(folder: Path, every_image: bool = True) -> list[Finding]:
    """Check a machine's folder, the machine, and the store in its name.

    Args:
        folder: the hub's or a hospital's.
        every_image: whether each image and mask is read to its end, which takes a while.

    Returns:
        A finding per check; those that another fault makes pointless are left out, and that is said.
    """
    if folder.is_dir():
        keep_errors(folder)
    whole = whole_folder(folder)
    if whole.level == "failed":
        return [whole]
    ws, home = enter_home(folder)
    keys = own_identity(folder, home)
    local = [kept_secret(folder), keys, disk_space(folder), memory(), gpu()]
    if home.name != HUB:
        local.append(case_table(ws, home))
        if every_image and local[-1].level == "ok":
            local.append(images(ws, home))
    if keys.level == "failed":
        left_out = Finding(
            "further", "warning", "the checks of the store were left out", f"mend '{keys.check}' first"
        )
        return [whole, *local, left_out]
    return [whole, *local, *_of_store(ws, home)]


def _of_store(ws: Workspace, home: Home) -> Iterator[Finding]:
    for check in LADDER:
        found = check(ws, home)
        yield found
        if found.level == "failed":
            yield Finding(
                "further", "warning", "other checks of the store were left out", f"mend '{found.check}' first"
            )
            return
    for check in OF_HUB if home.name == HUB else OF_SITE:
        yield check(ws, home)
