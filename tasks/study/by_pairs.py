"""Methods that keep LoRA's A and B over the rounds and merge them, each as its paper says.

All of them train the same layers: LoRA on the wide ones, the narrow ones whole and averaged plainly. They send
their factors as fp16; the values themselves are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from model.factors import Adapter, Factors, fold
from model.lora import LoraSpec
from model.methods.fedex import average_with_residual
from model.methods.fedit import average_pairs
from model.methods.fedsa import share_down_projection
from model.methods.ffa import average_down
from model.methods.flexlora import average_products, distribute
from model.methods.flora import stack_adapters
from model.methods.hetlora import cut, pad_and_weigh
from model.package import package_bytes
from model.seeds import derive_seed
from tasks.study.cell import Weights
from tasks.study.local import Pairs, fresh_pairs, train_pairs
from tasks.study.trial import Trial


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
class PairMethod:
    """One way to merge A and B.

    Attributes:
        merge: state, uploads, shares, specs and round seed → the next state, narrow layers already averaged.
        equal_ranks: every site has the largest rank.
        freeze_down: A is never trained.
        sends: which factors travel up, of ``A`` and ``B``.
        personal: no global model, every site ends with its own.
    """

    merge: Callable[[State, Mapping[str, Adapter], Mapping[str, float], Mapping[str, LoraSpec], int], State]
    equal_ranks: bool = True
    freeze_down: bool = False
    sends: str = "AB"
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
        state = method.merge(state, uploads, shares, specs, derive_seed(trial.seed, "A", number))
        for site in trial.sites:
            model = _model(state, site, method)
            up, down = _bytes(ends[site], method), _down_bytes(state, site, averaged)
            trial.note(number, site, trial.validate(model, site), up, down)
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


def _bytes(end: Pairs, method: PairMethod) -> int:
    """fp16 package of what goes up: the factors, and the narrow layers whole."""
    halves = sum(
        (f.B.numel() if "B" in method.sends else 0) + (f.A.numel() if "A" in method.sends else 0)
        for f in end.pairs.values()
    )
    return 2 * (halves + sum(W.numel() for W in end.whole.values()))


def _down_bytes(state: State, site: str, narrow: Weights) -> int:
    ranks = {name: (f.B.shape[0], f.A.shape[1], f.rank) for name, f in state.own[site].items()}
    return package_bytes(ranks, "fp16") + 2 * sum(W.numel() for W in narrow.values())


def _everyone(state: State, shared: dict[str, Factors]) -> dict[str, dict[str, Factors]]:
    return dict.fromkeys(state.own, shared)


def _fedit(state: State, uploads: Mapping[str, Adapter], shares: Mapping[str, float], *_: object) -> State:
    shared = average_pairs(uploads, shares)
    return replace(state, shared=shared, own=_everyone(state, shared))


def _ffa(state: State, uploads: Mapping[str, Adapter], shares: Mapping[str, float], *_: object) -> State:
    shared = average_down(uploads, shares, {name: f.A for name, f in state.shared.items()})
    return replace(state, shared=shared, own=_everyone(state, shared))


def _hetlora(
    state: State,
    uploads: Mapping[str, Adapter],
    shares: Mapping[str, float],
    specs: Mapping[str, LoraSpec],
    _: int,
) -> State:
    shared = pad_and_weigh(uploads, max(spec.rank for spec in specs.values()))
    return replace(state, shared=shared, own={site: cut(shared, specs[site].rank) for site in state.own})


def _flexlora(
    state: State,
    uploads: Mapping[str, Adapter],
    shares: Mapping[str, float],
    specs: Mapping[str, LoraSpec],
    _: int,
) -> State:
    shared = average_products(uploads, shares)
    own = {site: distribute(shared, specs[site].rank) for site in state.own}
    return replace(state, shared=shared, own=own)


def _flora(
    state: State,
    uploads: Mapping[str, Adapter],
    shares: Mapping[str, float],
    specs: Mapping[str, LoraSpec],
    seed: int,
) -> State:
    weights = fold(state.weights, stack_adapters(uploads, shares))
    fresh = {site: _restart(uploads[site], seed) for site in state.own}
    return State(weights, {}, fresh)


def _fedex(state: State, uploads: Mapping[str, Adapter], shares: Mapping[str, float], *_: object) -> State:
    shared, residual = average_with_residual(uploads, shares)
    return State(fold(state.weights, residual), shared, _everyone(state, shared))


def _fedsa(state: State, uploads: Mapping[str, Adapter], shares: Mapping[str, float], *_: object) -> State:
    down = share_down_projection(uploads, shares)
    own = {
        site: {name: Factors(f.B, down[name]) for name, f in pairs.items()} for site, pairs in uploads.items()
    }
    return replace(state, own=own)


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
    "flora": PairMethod(_flora, equal_ranks=False),
    "fedex-lora": PairMethod(_fedex),
    "fedsa-lora": PairMethod(_fedsa, sends="A", personal=True),
}
