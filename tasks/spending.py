"""What a site's updates have said of its data so far: a book of releases, and (ε, δ) over all of them.

A release is one noisy update that may have left the site. It is in the book before it leaves, and counts once however
often it is sent. The unit is the site's whole contribution to a round, not a patient: with ε small, nobody can tell
whether the site's data took part at all or its update was zero.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from model.errors import UnreadableError
from model.factors import Adapter, Factors
from model.noise import privatise
from tasks.answers import find_answer
from tasks.files import json_bytes, write_atomic
from tasks.ledger import update_key
from tasks.records import Spent, Update
from tasks.settings import Dp
from tasks.store import Store

BOOK_FILE = "releases.json"
_ORDERS = tuple(1 + 10 ** (k / 50 - 4) for k in range(451))
"""Of the Rényi divergence: 1.0001 to 100,001; the best of them bounds ε."""

Book = Mapping[str, float]
"""sha256 of a package that was, or may have been, sent → its noise multiplier."""


def add_noise(update: Adapter, dp: Dp) -> dict[str, Factors]:
    """Clip and noise an update, with noise that follows from no seed of the federation and is kept nowhere."""
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    return privatise(update, dp.clip, dp.noise, generator)


def read_book(home: Path, store: Store, site: str, number: int) -> Book:
    """The releases of a site.

    Args:
        home: the site's folder.
        store: the ledger's; where the book is lost, what the site announced there stands in for it.
        site: whose.
        number: of the round at work.

    Returns:
        All earlier releases, and those of this round.

    Raises:
        UnreadableError: the file is damaged.
    """
    path = home / BOOK_FILE
    try:
        return {str(sha256): float(noise) for sha256, noise in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        announced = (find_answer(store, update_key(site, n), Update) for n in range(1, number + 1))
        return {u.adapter_sha256: u.spent.noise for u in announced if u and u.spent}
    except (ValueError, AttributeError, TypeError) as error:
        mend = "bring it back from the backup; without it ε cannot be told"
        raise UnreadableError("the book of releases is damaged", str(path), mend) from error


def write_book(home: Path, book: Book) -> None:
    """Keep a book; done before the release that is new in it leaves."""
    write_atomic(home / BOOK_FILE, json_bytes(dict(book)))


def spending(book: Book, dp: Dp) -> Spent:
    """What all releases of a book say together.

    Args:
        book: with the newest release.
        dp: clip, noise and δ of the newest.

    Returns:
        Number of releases, and ε at δ over all of them.
    """
    epsilon = epsilon_of(tuple(book.values()), dp.delta)
    return Spent(clip=dp.clip, noise=dp.noise, delta=dp.delta, releases=len(book), epsilon=round(epsilon, 4))


def epsilon_of(noises: Sequence[float], delta: float) -> float:
    """ε of Gaussian mechanisms one after the other, by Rényi accounting.

    Args:
        noises: noise multiplier of each release, of which nothing was sampled.
        delta: probability with which ε may be exceeded.

    Returns:
        An upper bound; 0 for none.

    Source: Mironov, arXiv 1702.07476; the accountant is Opacus's.
    """
    if not noises:
        return 0.0
    from opacus.accountants import RDPAccountant  # takes seconds, for its users alone

    accountant = RDPAccountant()
    for noise in noises:
        accountant.step(noise_multiplier=noise, sample_rate=1.0)
    return float(accountant.get_epsilon(delta=delta, alphas=list(_ORDERS)))
