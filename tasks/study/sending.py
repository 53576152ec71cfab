"""What a site sends in a round of the study: its update as the hub receives it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from model.attacks import UPDATE_ATTACKS
from model.factors import Adapter, Factors, factorise
from model.seeds import derive_generator, derive_seed
from tasks.packing import pack_parcel
from tasks.study.cell import Weights
from tasks.study.local import fresh_pairs, train_pairs
from tasks.study.trial import Trial


@dataclass(frozen=True)
class Sent:
    """One update.

    Attributes:
        adapter: as every receiver decodes it.
        n_bytes: of its package.
        rest: what the package could not carry; the site keeps it.
        discount: of its volume, for age.
    """

    adapter: Adapter
    n_bytes: int
    rest: dict[str, Factors]
    discount: float = 1.0


def send_update(
    trial: Trial, site: str, start: Weights, rest: Adapter, seen: Adapter | None, number: int
) -> Sent:
    """Train a fresh adapter, falsify it where the scenario says so, and pack it.

    Args:
        trial: the cell at work.
        site: who sends.
        start: the model before the round.
        rest: what the site's earlier packages left behind.
        seen: the last published step, for those who send it back.
        number: of the round.

    Returns:
        The update.
    """
    params, seed = trial.params, derive_seed(trial.seed, site, number)
    update: Adapter = trial.train(site, start, params.training.steps, seed)
    attack = UPDATE_ATTACKS.get(trial.scenario.attack)
    if attack is not None and site in trial.places(trial.scenario.attackers):
        update = attack(update, seen, derive_generator(seed, "attack"))
    parcel = pack_parcel(update, rest, params.package, params.package.upload_bytes, params.merge.rank_max)
    return Sent(parcel.decoded, len(parcel.data), parcel.rest)


def send_up_projection(trial: Trial, site: str, start: Weights, rest: Adapter, number: int) -> Sent:
    """As :func:`send_update` with A from the round's seed: only B travels, in its own small basis.

    Narrow layers travel as always. A of the next round is another one, so what was cut of a B is not carried over.

    Args:
        trial: the cell at work.
        site: who sends.
        start: the model before the round.
        rest: what the site's earlier packages left behind, narrow layers alone.
        number: of the round.

    Returns:
        The update.
    """
    params, spec = trial.params, replace(trial.spec(site), rank=trial.params.lora.rank_max)
    slices, seed = trial.members[site].train, derive_seed(trial.seed, site, number)
    pairs = fresh_pairs(params, start, spec, derive_seed(trial.seed, "shared A", number))
    end = train_pairs(params, slices, start, spec, seed, pairs, freeze_down=True)
    coded = {name: Factors(f.B, torch.eye(f.rank, dtype=f.B.dtype)) for name, f in end.pairs.items()}
    for name, W in end.whole.items():
        coded[name] = factorise(W - start[name], W.shape[0])[0]
    parcel = pack_parcel(coded, rest, params.package, params.package.upload_bytes, params.merge.rank_max)
    decoded = {
        name: Factors(f.B, f.A @ pairs[name].A.float()) if name in pairs else f
        for name, f in parcel.decoded.items()
    }
    return Sent(decoded, len(parcel.data), {name: f for name, f in parcel.rest.items() if name not in pairs})
