"""``cardiofed hub …``: the hub's machine, and who takes part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.options import Set, load
from flows.site_cli import work
from model.errors import ConfigError
from tasks.ledger import checked_name

if TYPE_CHECKING:
    from tasks.homes import Home as Addresses

console = Console()
hub_app = typer.Typer(no_args_is_help=True, help="The hub's machine, and who takes part.")

Home = Annotated[Path, typer.Option(help="The hub's own folder.")]
Name = Annotated[str, typer.Argument(help="The hospital: 1 to 40 of a-z, 0-9 and -.")]
StoreUrl = Annotated[
    str | None, typer.Option(help="The store, as hospitals reach it; the hub's when left out.")
]
PrefectUrl = Annotated[
    str | None,
    typer.Option(
        help="Prefect's API, as hospitals reach it; the hub's when left out, empty for without Prefect."
    ),
]
Out = Annotated[Path, typer.Option(help="Where to write the invitation; keep it secret.")]
MadeByHand = Annotated[
    bool, typer.Option(help="The store's user was made by hand: SITE_ACCESS_KEY and SITE_SECRET_KEY tell it.")
]
LeftToHand = Annotated[
    bool, typer.Option("--by-hand", help="Leave its user of the store to the store's administrator.")
]


@hub_app.command("init")
def hub_init(
    home: Home,
    prefect_url: Annotated[str, typer.Option(help="Prefect's API, such as https://prefect.example.org/api.")],
    overrides: Set = None,
) -> None:
    """Make a hub's folder, keys, base, bucket, deployment; CARDIOFED_S3_… tell the store and the hub's credentials."""
    params = load(overrides)
    from flows.hub_home import make_hub

    make_hub(home, prefect_url, params)
    console.print(
        f"the hub is set up; invite hospitals, then: cardiofed hub work --home {home}", soft_wrap=True
    )


@hub_app.command("work")
def hub_work(home: Home) -> None:
    """Be the hub's Prefect worker until ended."""
    work(home)


@hub_app.command("invite")
def hub_invite(
    name: Name,
    home: Home,
    out: Out,
    store_url: StoreUrl = None,
    prefect_url: PrefectUrl = None,
    by_hand: MadeByHand = False,
) -> None:
    """Invite a hospital from the next round on, and write the file that it joins with, once."""
    from flows.invitations import invite_site, user_by_hand, write_invitation
    from tasks.homes import read_home

    checked_name(name)
    if out.exists():
        raise ConfigError("there is a file already", str(out), "remove it, or name another")
    own = read_home(home)
    if own.prefect_api_url:
        _deploy(home, own.prefect_api_url, name)
    user = user_by_hand() if by_hand else None
    write_invitation(invite_site(home, name, _reached(own, store_url, prefect_url), user), out)
    console.print(f"invited {name}; hand over {out} over a safe way", soft_wrap=True)


@hub_app.command("rotate")
def hub_rotate(
    name: Name,
    home: Home,
    out: Out,
    now: Annotated[bool, typer.Option(help="End its key at once, not when it has joined anew.")] = False,
    store_url: StoreUrl = None,
    prefect_url: PrefectUrl = None,
    by_hand: MadeByHand = False,
) -> None:
    """Give a hospital a new secret of the store, and write the file by which it takes a new key."""
    from flows.invitations import rotate_site, user_by_hand, write_invitation
    from tasks.homes import read_home

    reached = _reached(read_home(home), store_url, prefect_url)
    write_invitation(rotate_site(home, name, now, reached, user_by_hand() if by_hand else None), out)
    console.print(
        f"{name} joins anew with {out}: cardiofed site join; its old secret has ended", soft_wrap=True
    )


@hub_app.command("revoke")
def hub_revoke(name: Name, home: Home, by_hand: LeftToHand = False) -> None:
    """End a hospital's key and its user of the store at once: what it sent and is not merged is refused."""
    from flows.invitations import revoke_site

    revoke_site(home, name, by_hand)
    console.print(f"the key of {name} is revoked; it takes part again with another: cardiofed hub invite")


@hub_app.command("dismiss")
def hub_dismiss(name: Name, home: Home, by_hand: LeftToHand = False) -> None:
    """Let a hospital go: its user of the store ends at once, what it has delivered counts."""
    from flows.invitations import dismiss_site

    dismiss_site(home, name, by_hand)
    console.print(f"{name} takes no part in rounds that open from now on")


@hub_app.command("set")
def hub_set(
    overrides: Annotated[list[str], typer.Argument(help="Such as merge.mode=shadow.")], home: Home
) -> None:
    """Change settings from the next round on; those that the model stands on stay."""
    from flows.hub_settings import change_settings

    change_settings(home, tuple(overrides))
    console.print(f"rounds that open from now on have {', '.join(overrides)}", markup=False, soft_wrap=True)


def _reached(own: Addresses, store_url: str | None, prefect_url: str | None) -> Addresses:
    seen = {"s3_endpoint": store_url, "prefect_api_url": prefect_url}
    return own.model_copy(update={key: value for key, value in seen.items() if value is not None})


def _deploy(hub: Path, api_url: str, site: str) -> None:
    from infra.prefect_server import prefect_environment

    os.environ |= prefect_environment(api_url, hub / "worker")
    from flows.deployments import deploy_site  # Prefect reads its settings when it is imported

    deploy_site(site)
