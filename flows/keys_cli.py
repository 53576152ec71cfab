"""``cardiofed keys …``: a machine's own keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tasks.identity import Identity

console = Console()
keys_app = typer.Typer(no_args_is_help=True, help="A machine's own keys.")

Home = Annotated[Path, typer.Option(help="The machine's own folder.")]


@keys_app.command("new")
def keys_new(home: Home) -> None:
    """Make the keys of a machine: identity.pem signs, age.key decrypts. CARDIOFED_KEY_PASSPHRASE locks the former."""
    from tasks.identity import new_identity

    _show(new_identity(home))


@keys_app.command("show")
def keys_show(home: Home) -> None:
    """Print the public halves of a machine's keys, and the short form to compare over the telephone."""
    from tasks.identity import read_identity

    _show(read_identity(home))


def _show(identity: Identity) -> None:
    from tasks.identity import described

    public = identity.public
    rows = (("signs as", public.sign), ("decrypts as", public.age), ("fingerprint", described(public)))
    for name, value in rows:
        console.print(f"{name:<12} {value}", soft_wrap=True, highlight=False)
