"""The study's memory: the same question is answered once, another one anew, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from study_files import SITES, same_adapter, study_root, trial_of
from torch import Tensor

import tasks.study.trial
from tasks.study.memo import Memo
from tasks.study.methods import METHODS
from tasks.study.version import counted_modules

ASKED = ("scores", 3, torch.arange(4.0), {"layer": torch.ones(2)})


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo(tmp_path / "memo", "1")


def answer(memo: Memo, computed: list[int], *parts: object) -> Tensor:
    def compute() -> dict[str, Tensor]:
        computed.append(1)
        return {"x": torch.tensor([1 / 3, float("nan")], dtype=torch.float64)}

    return memo.recall(compute, *parts)["x"]


def test_the_same_question_is_computed_once_and_answered_to_the_last_bit(memo: Memo) -> None:
    computed: list[int] = []
    first, second = answer(memo, computed, *ASKED), answer(memo, computed, *ASKED)
    assert computed == [1]
    assert first.numpy().tobytes() == second.numpy().tobytes()


@pytest.mark.parametrize(
    "other",
    [
        ("gains", *ASKED[1:]),
        (ASKED[0], 4, *ASKED[2:]),
        (*ASKED[:2], torch.arange(4), ASKED[3]),
        (*ASKED[:2], torch.arange(4.0).reshape(2, 2), ASKED[3]),
        (*ASKED[:3], {"other": torch.ones(2)}),
        (*ASKED[:3], {"layer": torch.zeros(2)}),
        ASKED[:3],
    ],
)
def test_whatever_differs_is_another_question(memo: Memo, other: tuple[object, ...]) -> None:
    computed: list[int] = []
    for parts in (ASKED, other):
        answer(memo, computed, *parts)
    assert computed == [1, 1]


def test_other_code_answers_anew(memo: Memo) -> None:
    computed: list[int] = []
    for version in ("1", "2"):
        answer(Memo(memo.folder, version), computed, *ASKED)
    assert computed == [1, 1]


def test_a_recalled_training_is_the_training(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "study"
    study_root(tmp_path_factory, root)
    trial = trial_of(tmp_path_factory, root, "average")
    first = trial.train(SITES[0], trial.base, 2, 7)
    monkeypatch.setattr(tasks.study.trial, "train_adapter", None)
    assert same_adapter(trial_of(tmp_path_factory, root, "rated").train(SITES[0], trial.base, 2, 7), first)
    with pytest.raises(TypeError):
        trial.train(SITES[1], trial.base, 2, 7)


@pytest.mark.parametrize("module", sorted({method.module for method in METHODS.values()}))
def test_what_trains_a_cell_counts_and_what_reports_it_does_not(module: str) -> None:
    counted = set(counted_modules((module,)))
    assert {module, "model.training", "model.network", "tasks.study.trial"} <= counted
    assert ("model.rating" in counted) == (module == "tasks.study.by_steps")
    away = ("flows", "infra", "tasks.study_report", "tasks.ledger", "tasks.study.methods")
    assert not any(name.startswith(away) for name in counted)
