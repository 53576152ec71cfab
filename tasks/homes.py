"""A machine's own folder: who works there, where hub and store are, and its credentials in a file only it may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from model.errors import ConfigError, PackageError
from tasks.files import json_bytes, write_atomic
from tasks.ledger import checked_name
from tasks.limits import INVITATION, parse_record
from tasks.records import PublicIdentity
from tasks.settings import Params
from tasks.trust import HUB
from tasks.workspace import Workspace, open_workspace

__all__ = ["HUB"]

T = TypeVar("T", bound=BaseModel)

HOME_FILE, CREDENTIALS_FILE, PARAMS_FILE = "home.json", "credentials.json", "params.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Home(_Part):
    """What a machine knows of the federation."""

    name: str = Field(description="of the hospital, or hub")
    s3_endpoint: str
    s3_bucket: str = "cardiofed"
    s3_region: str = "us-east-1"
    prefect_api_url: str = Field("", description="empty where the machine may not reach Prefect")


class Credentials(_Part):
    """Who the machine is to the store."""

    access_key: str
    secret_key: SecretStr


class Invitation(_Part):
    """What a hospital is sent to join, once: keep it secret, it holds credentials."""

    home: Home
    access_key: str
    secret_key: str
    params: Params
    hub: PublicIdentity = Field(description="whose word the hospital will take for the hub's")
    token: str = Field(description="one-time key that vouches for the hospital's own")
    replaces: str = Field(
        "", description="signing key of the hospital that shall not be used on; empty for none"
    )


def write_home(folder: Path, home: Home, credentials: Credentials, params: Params) -> None:
    """Make a machine's folder, or renew what it knows.

    Args:
        folder: the machine's own.
        home: what it knows.
        credentials: written for the owner alone to read.
        params: the federation's settings.

    Raises:
        ConfigError: the folder is another machine's, or the name cannot be used.
        DiskError: it cannot be written.
    """
    checked_name(home.name)
    if (folder / HOME_FILE).exists() and (found := read_home(folder).name) != home.name:
        mend = "choose an empty folder"
        raise ConfigError(f"this folder belongs to '{found}', not to '{home.name}'", str(folder), mend)
    write_credentials(folder, credentials)
    write_atomic(folder / PARAMS_FILE, json_bytes(params.model_dump(mode="json")))
    write_atomic(folder / HOME_FILE, json_bytes(home.model_dump(mode="json")))


def write_credentials(folder: Path, credentials: Credentials) -> None:
    """Write down who the machine of a folder is to the store, for the owner alone to read.

    Args:
        folder: the machine's own.
        credentials: its keys.

    Raises:
        DiskError: they cannot be written.
    """
    secret = {"access_key": credentials.access_key, "secret_key": credentials.secret_key.get_secret_value()}
    write_atomic(folder / CREDENTIALS_FILE, json_bytes(secret), mode=0o600)


def read_home(folder: Path) -> Home:
    """What the machine of a folder knows.

    Args:
        folder: the machine's own.

    Returns:
        Its name and its addresses.

    Raises:
        ConfigError: it is no machine's folder, or the file is damaged.
    """
    return _read(folder / HOME_FILE, Home)


def read_credentials(folder: Path) -> Credentials:
    """Who the machine of a folder is to the store.

    Args:
        folder: the machine's own.

    Returns:
        Its keys; the secret shows in no text.

    Raises:
        ConfigError: it is no machine's folder, or the file is damaged.
    """
    return _read(folder / CREDENTIALS_FILE, Credentials)


def enter_home(folder: Path) -> tuple[Workspace, Home]:
    """Be the machine of a folder: this process speaks to its store in its name.

    Args:
        folder: written by :func:`write_home`.

    Returns:
        Its workspace, and what it knows.

    Raises:
        ConfigError: it is no machine's folder, or a file is damaged.
    """
    home, own = read_home(folder), read_credentials(folder)
    os.environ |= {
        "CARDIOFED_HOME": str(folder.absolute()),
        "CARDIOFED_S3_ENDPOINT": home.s3_endpoint,
        "CARDIOFED_S3_BUCKET": home.s3_bucket,
        "CARDIOFED_S3_REGION": home.s3_region,
        "CARDIOFED_S3_ACCESS_KEY": own.access_key,
        "CARDIOFED_S3_SECRET_KEY": own.secret_key.get_secret_value(),
    }
    return open_workspace(folder.absolute()), home


def this_home() -> tuple[Workspace, Home]:
    """The machine that this process works for, by ``CARDIOFED_HOME``.

    Returns:
        Its workspace, and what it knows.

    Raises:
        ConfigError: the variable is not set, or names no machine's folder.
    """
    folder = os.environ.get("CARDIOFED_HOME")
    if folder is None:
        mend = "start the worker with `cardiofed hub work` or `cardiofed site work`"
        raise ConfigError("this process works for no machine", "CARDIOFED_HOME", mend)
    return enter_home(Path(folder))


def read_invitation(path: Path) -> Invitation:
    """A hub's invitation.

    Args:
        path: of its file.

    Returns:
        What the file holds.

    Raises:
        ConfigError: no such file, or no invitation.
    """
    return _read(path, Invitation)


def _read(path: Path, kind: type[T]) -> T:
    try:
        with path.open("rb") as file:
            data = file.read(INVITATION.n_bytes + 1)
        return parse_record(data, kind, str(path), INVITATION)
    except OSError as error:
        mend = "name the folder or file that the hub or `cardiofed site join` has made"
        raise ConfigError(f"cannot be read: {error.strerror}", str(path), mend) from error
    except PackageError as error:
        raise ConfigError(error.what, str(path), "ask the hub for a new one") from error
