"""Methods that keep LoRA's A and B over the rounds and merge them, each as its paper says.

All of them train the same layers: LoRA on the wide ones, the narrow ones whole and averaged plainly. They send
their factors as fp16; the values themselves are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from model.factors import Adapter, Factors, fold, truncate
from model.lora import LoraSpec
from model.methods.fedex import average_with_residual
from model.methods.fedit import average_pairs
from model.methods.fedsa import share_down_projection
from model.methods.ffa import average_down
from model.methods.flexlora import average_products, distribute
from model.methods.flora import stack_adapters
from model.methods.hetlora import cut, pad_and_weigh
from model.seeds import derive_seed
from tasks.study.cell import Weights
from tasks.study.local import Pairs, fresh_pairs, train_pairs
from tasks.study.trial import Trial

FP16_BYTES = 2


@dataclass(frozen=True)
class State:
    """What hub and sites hold between rounds.

    Attributes:
        weights: the base with all that was folded in; the pairs are not.
        shared: pairs of the global model; empty when everything is folded.
        own: site → pairs it starts the next round from.
    """

    weights: Weights
    shared: dict[str, Factors]
    own: dict[str, dict[str, Factors]]


@dataclass(frozen=True)
class Round:
    """What a merge is made of.

    Attributes:
        pairs: site → its pairs as trained.
        shares: site → share of the training slices.
        ranks: site → rank before the cap of a layer.
        seed: of the round.
    """

    pairs: Mapping[str, Adapter]
    shares: Mapping[str, float]
    ranks: Mapping[str, int]
    seed: int


@dataclass(frozen=True)
class PairMethod:
    """One way to merge A and B.

    Attributes:
        merge: state and round → the next state, narrow layers already averaged.
        equal_ranks: every site has the largest rank.
        freeze_down: A is never trained.
        sends: which factors travel up and down, of ``A`` and ``B``.
        stacks: every site downloads all sites' factors beside its own start: to fold them in, or what they leave out.
        personal: no global model, every site ends with its own.
    """

    merge: Callable[[State, Round], State]
    equal_ranks: bool = True
    freeze_down: bool = False
    sends: str = "AB"
    stacks: bool = False
    personal: bool = False


def run_pairs(trial: Trial, method: PairMethod) -> dict[str, Weights]:
    """All rounds of one method.

    Args:
        trial: the cell at work.
        method: how A and B are merged.

    Returns:
        ``global`` → weights with the pairs folded in, or a model per site where the method is personal.
    """
    specs = _specs(trial, method)
    largest = max(specs.values(), key=lambda spec: spec.rank)
    initial = fresh_pairs(trial.params, trial.base, largest, derive_seed(trial.seed, "pairs"))
    state = State(trial.base, initial, {site: cut(initial, specs[site].rank) for site in trial.sites})
    shares = trial.shares(trial.sites)
    for number in range(1, trial.params.federation.rounds + 1):
        ends = {site: _train(trial, method, state, specs[site], site, number) for site in trial.sites}
        narrow = {name: trial.base[name] for name in next(iter(ends.values())).whole}
        averaged = {
            name: torch.stack([shares[s] * ends[s].whole[name].double() for s in trial.sites]).sum(0).float()
            for name in narrow
        }
        state = replace(state, weights=state.weights | averaged)
        uploads = {site: end.pairs for site, end in ends.items()}
        ranks = {site: specs[site].rank for site in trial.sites}
        state = method.merge(state, Round(uploads, shares, ranks, derive_seed(trial.seed, "A", number)))
        up = {site: _bytes(end.pairs, averaged, method) for site, end in ends.items()}
        for site in trial.sites:
            scores = trial.validate(_model(state, site, method), site)
            trial.note(number, site, scores, up[site], _down_bytes(state, site, up, averaged, method))
    if method.personal:
        return {site: _model(state, site, method) for site in trial.sites}
    return {"global": _model(state, trial.sites[0], method)}


def _specs(trial: Trial, method: PairMethod) -> dict[str, LoraSpec]:
    specs = {site: trial.spec(site) for site in trial.sites}
    if not method.equal_ranks:
        return specs
    rank = max(spec.rank for spec in specs.values())
    return {site: replace(spec, rank=rank) for site, spec in specs.items()}


def _train(trial: Trial, method: PairMethod, state: State, spec: LoraSpec, site: str, number: int) -> Pairs:
    slices, seed = trial.members[site].train, derive_seed(trial.seed, site, number)
    start = state.own[site]
    return train_pairs(trial.params, slices, state.weights, spec, seed, start, method.freeze_down)


def _model(state: State, site: str, method: PairMethod) -> Weights:
    return fold(state.weights, state.own[site] if method.personal else state.shared)


def _bytes(pairs: Adapter, narrow: Weights, method: PairMethod) -> int:
    """fp16 values alone: the factors that travel, and the narrow layers whole; names and sizes are left out."""
    halves = sum(
        (f.B.numel() if "B" in method.sends else 0) + (f.A.numel() if "A" in method.sends else 0)
        for f in pairs.values()
    )
    return FP16_BYTES * (halves + sum(W.numel() for W in narrow.values()))


def _down_bytes(state: State, site: str, up: Mapping[str, int], narrow: Weights, method: PairMethod) -> int:
    """What the site needs for the next round; A that a seed gives does not travel, nor the narrow layers twice."""
    own = _bytes(state.own[site], narrow, method)
    if not method.stacks:
        return own
    narrow_bytes = FP16_BYTES * sum(W.numel() for W in narrow.values())
    factors = sum(size - narrow_bytes for size in up.values())
    return factors + (own if state.shared else narrow_bytes)


def _everyone(state: State, shared: dict[str, Factors]) -> dict[str, dict[str, Factors]]:
    return dict.fromkeys(state.own, shared)


def _fedit(state: State, done: Round) -> State:
    shared = average_pairs(done.pairs, done.shares)
    return replace(state, shared=shared, own=_everyone(state, shared))


def _ffa(state: State, done: Round) -> State:
    shared = average_down(done.pairs, done.shares, {name: f.A for name, f in state.shared.items()})
    return replace(state, shared=shared, own=_everyone(state, shared))


def _hetlora(state: State, done: Round) -> State:
    padded, largest = pad_and_weigh(done.pairs, max(done.ranks.values())), _largest(done.pairs)
    shared = {name: Factors(f.B[:, : largest[name]], f.A[: largest[name]]) for name, f in padded.items()}
    return replace(state, shared=shared, own={site: cut(shared, done.ranks[site]) for site in state.own})


def _flexlora(state: State, done: Round) -> State:
    average, largest = average_products(done.pairs, done.shares), _largest(done.pairs)
    shared = {name: truncate(f, largest[name])[0] for name, f in average.items()}
    return replace(state, shared=shared, own={s: distribute(shared, done.ranks[s]) for s in state.own})


def _flora(state: State, done: Round) -> State:
    weights = fold(state.weights, stack_adapters(done.pairs, done.shares))
    return State(weights, {}, {site: _restart(done.pairs[site], done.seed) for site in state.own})


def _fedex(state: State, done: Round) -> State:
    shared, residual = average_with_residual(done.pairs, done.shares)
    return State(fold(state.weights, residual), shared, _everyone(state, shared))


def _fedsa(state: State, done: Round) -> State:
    down = share_down_projection(done.pairs, done.shares)
    own = {
        site: {name: Factors(f.B, down[name]) for name, f in pairs.items()}
        for site, pairs in done.pairs.items()
    }
    return replace(state, own=own)


def _largest(uploads: Mapping[str, Adapter]) -> dict[str, int]:
    """Largest rank that was sent, by layer."""
    return {
        name: max(pairs[name].rank for pairs in uploads.values()) for name in next(iter(uploads.values()))
    }


def _restart(trained: Adapter, seed: int) -> dict[str, Factors]:
    """Pairs as after injection: A anew, uniform as Kaiming's, B zero."""
    generator = torch.Generator().manual_seed(seed)
    fresh = {}
    for name, (B, A) in sorted(trained.items()):
        bound = A.shape[1] ** -0.5
        drawn = (torch.rand(A.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
        fresh[name] = Factors(torch.zeros_like(B, dtype=torch.float64), drawn)
    return fresh


PAIR_METHODS: dict[str, PairMethod] = {
    "fedit": PairMethod(_fedit),
    "ffa-lora": PairMethod(_ffa, freeze_down=True, sends="B"),
    "hetlora": PairMethod(_hetlora, equal_ranks=False),
    "flexlora": PairMethod(_flexlora, equal_ranks=False),
    "flora": PairMethod(_flora, equal_ranks=False, stacks=True),
    "fedex-lora": PairMethod(_fedex, stacks=True),
    "fedsa-lora": PairMethod(_fedsa, sends="A", personal=True),
}
