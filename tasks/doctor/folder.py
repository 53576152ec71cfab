"""The machine's own folder: whose it is, whether it is whole, and who else may read its secret."""

from __future__ import annotations

import os
from pathlib import Path

from model.errors import ConfigError
from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.homes import CREDENTIALS_FILE, enter_home


@named("folder")
def whole_folder(folder: Path) -> Finding:
    """``home.json``, ``credentials.json`` and ``params.json`` can be read, and the folder can be written."""
    try:
        _, home = enter_home(folder)
    except ConfigError as error:
        said = f"{Path(error.where).name}: {error.what.splitlines()[0]}"
        return broken(
            said, "name the machine's own folder; if it is damaged, join again with a new invitation"
        )
    if not os.access(folder, os.W_OK):
        return broken("cannot be written", "give the folder to the user who runs this program")
    return well(f"that of '{home.name}'")


@named("secret")
def kept_secret(folder: Path) -> Finding:
    """Only their owner may use the credentials.

    Failed where every user of the machine may, a warning where their group may.
    """
    mode = (folder / CREDENTIALS_FILE).stat().st_mode & 0o777
    if mode & 0o077 == 0:
        return well("only its owner can read the credentials")
    tell, who = (broken, "every user of this machine") if mode & 0o007 else (doubtful, "their group")
    return tell(f"{CREDENTIALS_FILE} is open to {who} ({mode:04o})", f"chmod 600 {CREDENTIALS_FILE}")
