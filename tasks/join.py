"""A hospital joins: its own folder, its own data prepared there, its card in the ledger."""

from __future__ import annotations

from pathlib import Path

from model.errors import CohortError
from tasks.enrol import read_card
from tasks.homes import Credentials, Invitation, enter_home, write_home
from tasks.ledger import card_key, put_record
from tasks.prepare import prepare
from tasks.small_cells import shareable
from tasks.workspace import Workspace


def join(folder: Path, invitation: Invitation, data: Path, layout: str) -> Workspace:
    """Make a hospital's folder, prepare its data there and tell the hub that it has joined.

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
        DataError: the data cannot be used as it is.
        StoreError: the store does not answer, or refuses these credentials.
    """
    enter(folder, invitation)
    site = invitation.home.name
    prepare(data.resolve(), layout, f"site:{site}", folder / "cohort", invitation.params)
    return announce(folder)


def enter(folder: Path, invitation: Invitation) -> None:
    """Write down what the invitation tells."""
    credentials = Credentials.model_validate(
        {"access_key": invitation.access_key, "secret_key": invitation.secret_key}
    )
    write_home(folder, invitation.home, credentials, invitation.params)


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
