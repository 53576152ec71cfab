"""A hospital joins: its own folder and keys, its own data prepared there, its keys and its card in the ledger."""

from __future__ import annotations

from pathlib import Path

from model.errors import CohortError, StoreDeniedError
from tasks.enrol import read_card
from tasks.homes import (
    CREDENTIALS_FILE,
    Credentials,
    Invitation,
    enter_home,
    read_credentials,
    write_credentials,
    write_home,
)
from tasks.identity import have_identity, read_identity, renew_identity
from tasks.key_offer import offer_key
from tasks.ledger import card_key, put_record, site_prefix
from tasks.prepare import prepare
from tasks.small_cells import shareable
from tasks.trust import pin_hub, refuse_other_hub
from tasks.trusted_ca import keep_ca
from tasks.workspace import Workspace


def join(folder: Path, invitation: Invitation, data: Path, layout: str) -> Workspace:
    """Make a hospital's folder and keys, prepare its data there and tell the hub that it has joined.

    Run again, it renews credentials, data and card.

    Args:
        folder: the hospital's own.
        invitation: of the hub.
        data: the hospital's data set; it is read, and stays where it is.
        layout: how it is laid out.

    Returns:
        The hospital's workspace.

    Raises:
        ConfigError: the folder is another machine's.
        TrustError: the invitation was used for other keys, or is another hub's than the one before.
        DataError: the data cannot be used as it is.
        StoreError: the store does not answer, or refuses these credentials.
    """
    enter(folder, invitation)
    offer(folder, invitation)
    site = invitation.home.name
    prepare(data.resolve(), layout, f"site:{site}", folder / "cohort", invitation.params)
    return announce(folder)


def enter(folder: Path, invitation: Invitation) -> None:
    """Write down what the invitation tells, and have keys; credentials that the store still takes stay.

    Args:
        folder: the hospital's own.
        invitation: of the hub.

    Raises:
        ConfigError: the folder is another machine's.
        TrustError: the invitation is another hub's than the one before.
        KeyFileError: a key that is there cannot be used.
    """
    told = Credentials.model_validate(
        {"access_key": invitation.access_key, "secret_key": invitation.secret_key}
    )
    refuse_other_hub(folder, invitation.hub)
    held = read_credentials(folder) if (folder / CREDENTIALS_FILE).exists() else told
    write_home(folder, invitation.home, held, invitation.params)
    pin_hub(folder, invitation.hub)
    if invitation.home.s3_endpoint.startswith("https://"):
        keep_ca(folder)
    if held != told and not is_accepted(folder):
        write_credentials(folder, told)
        if not is_accepted(folder):  # a wrong clock, say: neither is known to have ended
            write_credentials(folder, held)
    if have_identity(folder).public.sign == invitation.replaces:
        renew_identity(folder)


def is_accepted(folder: Path) -> bool:
    """Whether the store takes the credentials in a hospital's folder.

    Args:
        folder: the hospital's, entered.

    Returns:
        False where it refuses them.

    Raises:
        StoreError: the store does not answer.
    """
    ws, home = enter_home(folder)
    try:
        ws.store.list(site_prefix(home.name))
    except StoreDeniedError:
        return False
    return True


def offer(folder: Path, invitation: Invitation) -> None:
    """Tell the hub the hospital's keys.

    Args:
        folder: the hospital's, entered.
        invitation: vouches for them.

    Raises:
        TrustError: the invitation was used for other keys.
        StoreError: the store does not answer, or refuses these credentials.
    """
    ws, home = enter_home(folder)
    offer_key(ws.store, home.name, read_identity(folder).public, invitation.token)


def announce(folder: Path) -> Workspace:
    """Put the card of a hospital whose data is prepared into the ledger.

    Args:
        folder: the hospital's.

    Returns:
        Its workspace.

    Raises:
        CohortError: the prepared data is another site's.
        StoreError: the store does not take it.
    """
    ws, home = enter_home(folder)
    card = read_card(ws.data_home(home.name))
    if card.site != home.name:
        mend = "prepare this hospital's own data"
        raise CohortError(f"the data is that of '{card.site}', not of '{home.name}'", str(folder), mend)
    put_record(ws.store, card_key(home.name), shareable(card, ws.params.privacy.fewest))
    return ws
