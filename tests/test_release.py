"""The clinical channel in a real git and DVC repository with a real S3 remote: whole, or as before."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from federation_files import new_run, use_store
from gto import api as gto
from report_files import close, plan, put
from test_gate import NOTHING, cases, harm, judge
from test_version import dvc_pull, git

from model.errors import ReleaseRefusedError, RoundError, StoreError
from tasks.files import sha256_bytes, write_atomic
from tasks.ledger import get_record, release_key, released_key
from tasks.pretrain import need_base
from tasks.records import Step
from tasks.release.channel import current_release, history, read_card
from tasks.release.decide import Decision, decide
from tasks.release.markdown import card_markdown
from tasks.release.promote import promote, publish_missing, release_round, roll_back
from tasks.release.records import AS_SHIPPED, Released
from tasks.release.validate import model_of, round_records
from tasks.settings import Environment
from tasks.workspace import Workspace

GOOD = judge(cases())
FEW = judge(cases(3))


@pytest.fixture
def ws(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, s3_environment: Environment, monkeypatch):
    """A run of which three rounds are mirrored; their steps are bytes that nobody folds."""
    run = new_run(tmp_path_factory, tmp_path / "run")
    use_store(monkeypatch, s3_environment)
    run.store.ensure_bucket()
    base, steps = need_base(run.base_home), []
    for number in (1, 2, 3):
        data = f"step {number}".encode()
        steps.append(Step(round=number, sha256=sha256_bytes(data), fraction=1.0))
        folder = run.rounds / f"{number:04d}"
        put(folder / "plan.json", plan(number, {"hillcrest": 40}).model_copy(update={"base": base}))
        put(folder / "close.json", close(number, ["hillcrest"]).model_copy(update={"steps": tuple(steps)}))
        write_atomic(folder / "merged.safetensors", data)
        write_atomic(run.versions / "rounds" / folder.name / "merged.safetensors", b"encrypted " + data)
    return run


def decision(ws: Workspace, number: int, findings=GOOD) -> Decision:
    """What the gate would say of a round, with findings from a table made by hand."""
    plan_, closed = round_records(ws, number)
    current = current_release(ws.versions)
    compared = (AS_SHIPPED, model_of(plan_.base, ()))
    if current:
        compared = (current.fact.release, read_card(ws.versions, current.fact.release)[0].model)
    return Decision(model_of(plan_.base, closed.steps), compared, findings, NOTHING)


def released(ws: Workspace, env: Environment, *numbers: int) -> list[Released]:
    return [promote(ws, n, "Dr. A. Example", decision(ws, n), env) for n in numbers]


def test_a_release_is_a_tag_a_card_and_a_model_that_a_clone_can_pull(
    ws: Workspace, s3_environment: Environment, tmp_path: Path
) -> None:
    (fact,) = released(ws, s3_environment, 2)
    assert (fact.number, fact.release, fact.before, fact.compared_with) == (1, "v1.0.0", None, AS_SHIPPED)
    assert git(ws.versions, "tag", "--list").split() == ["cardiofed#clinical#1", "cardiofed@v1.0.0"]
    assert git(ws.versions, "status", "--porcelain", "--untracked-files=no") == ""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(ws.versions), str(clone))
    git(clone, "checkout", "-q", "cardiofed@v1.0.0")
    dvc_pull(clone, s3_environment, "release/model.dvc")
    model = clone / "release" / "model"
    assert sha256_bytes((model / "base.safetensors").read_bytes()) == need_base(ws.base_home).sha256
    assert sorted(path.name for path in (model / "steps").iterdir()) == [
        "0001.safetensors",
        "0002.safetensors",
    ]
    assert (model / "steps" / "0002.safetensors").read_bytes() == b"encrypted step 2"
    text = (clone / "release" / "card.md").read_text()
    assert "Approved for the clinical channel by Dr. A. Example" in text
    assert "Not a medical device" in text
    assert fact.model_sha256 in text


def test_gto_reads_what_is_in_the_channel(ws: Workspace, s3_environment: Environment) -> None:
    released(ws, s3_environment, 1, 2)
    (found,) = gto.show(str(ws.versions), "cardiofed#clinical")
    assert found["version"] == "v1.1.0"
    roll_back(ws, "Dr. B. Example", s3_environment)
    (found,) = gto.show(str(ws.versions), "cardiofed#clinical")
    assert found["version"] == "v1.0.0"


def test_a_rollback_takes_the_topmost_release_away_and_a_second_one_the_next(
    ws: Workspace, s3_environment: Environment
) -> None:
    released(ws, s3_environment, 1, 2, 3)
    assert [roll_back(ws, "B", s3_environment).release for _ in range(2)] == ["v1.1.0", "v1.0.0"]
    with pytest.raises(RoundError, match=r"v1\.0\.0 is released, and nothing before it"):
        roll_back(ws, "B", s3_environment)
    assert [entry.fact.action for entry in history(ws.versions)] == ["release"] * 3 + ["rollback"] * 2
    (again,) = released(ws, s3_environment, 3)
    assert (again.number, again.release, again.before) == (6, "v1.3.0", "v1.0.0")


def test_the_ledger_knows_every_change_and_what_is_in_force(
    ws: Workspace, s3_environment: Environment
) -> None:
    facts = [*released(ws, s3_environment, 1, 2), roll_back(ws, "B", s3_environment)]
    kept = [get_record(ws.store, release_key(k), Released) for k in (1, 2, 3)]
    assert kept == facts
    assert get_record(ws.store, released_key(), Released) == facts[-1]
    assert facts[-1].action == "rollback"


def test_a_refused_model_changes_nothing(ws: Workspace, s3_environment: Environment) -> None:
    released(ws, s3_environment, 1)
    before = git(ws.versions, "for-each-ref"), [info.key for info in ws.store.list("")]
    bad = judge(harm(cases(), "dice", -0.05, group="HCM", structure="RV"))
    with pytest.raises(ReleaseRefusedError, match=r"worse than v1\.0\.0"):
        promote(ws, 2, "A", decision(ws, 2, bad), s3_environment)
    assert (git(ws.versions, "for-each-ref"), [info.key for info in ws.store.list("")]) == before


def test_what_is_not_decidable_is_released_and_stands_in_the_card(
    ws: Workspace, s3_environment: Environment
) -> None:
    fact = promote(ws, 1, "A", decision(ws, 1, FEW), s3_environment)
    card, _ = read_card(ws.versions, "v1.0.0")
    assert fact.undecided == sum(f.verdict == "not decidable" for f in card.findings) > 0
    assert "group HCM, RV" in next(limit for limit in card.limits if limit.startswith("Not judged"))
    assert "not decidable" in card_markdown(card)


def test_a_store_that_is_gone_leaves_the_old_release_and_the_next_call_completes(
    ws: Workspace, s3_environment: Environment
) -> None:
    released(ws, s3_environment, 1)
    gone = s3_environment.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(StoreError):
        promote(ws, 2, "A", decision(ws, 2), gone)
    current = current_release(ws.versions)
    assert current is not None
    assert current.fact.release == "v1.0.0"
    assert "cardiofed@v1.1.0" not in git(ws.versions, "tag", "--list")
    assert released(ws, s3_environment, 2)[0].release == "v1.1.0"


@pytest.mark.parametrize("left", ["a commit", "a version"])
def test_half_a_release_is_none_and_the_next_one_takes_its_name(
    ws: Workspace, s3_environment: Environment, left: str
) -> None:
    released(ws, s3_environment, 1, 2)
    git(ws.versions, "tag", "-d", "cardiofed#clinical#2")
    if left == "a commit":
        git(ws.versions, "tag", "-d", "cardiofed@v1.1.0")
    current = current_release(ws.versions)
    assert current is not None
    assert current.fact.release == "v1.0.0"
    fact = promote(ws, 3, "C", decision(ws, 3), s3_environment)
    assert (fact.release, fact.number, fact.round, fact.approved_by) == ("v1.1.0", 2, 3, "C")
    assert read_card(ws.versions, "v1.1.0")[0].round == 3


def test_a_fact_that_did_not_reach_the_ledger_is_told_later(
    ws: Workspace, s3_environment: Environment
) -> None:
    released(ws, s3_environment, 1)
    ws.store._client.delete_object(Bucket=ws.store.bucket, Key=release_key(1))
    publish_missing(ws.store, history(ws.versions))
    assert get_record(ws.store, release_key(1), Released).release == "v1.0.0"


def test_a_release_that_came_in_between_is_not_overwritten(
    ws: Workspace, s3_environment: Environment
) -> None:
    slow = decision(ws, 2)
    released(ws, s3_environment, 1)
    with pytest.raises(RoundError, match="in between"):
        promote(ws, 2, "A", slow, s3_environment)


def test_the_model_in_use_is_not_released_again(ws: Workspace, s3_environment: Environment) -> None:
    (first,) = released(ws, s3_environment, 2)
    assert release_round(ws, 2, "somebody else", s3_environment) == first


def test_a_hub_that_was_told_nothing_does_not_decide(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="too few patients") as refused:
        decide(ws, 1, None, tmp_path / "nothing")
    assert refused.value.where == "hillcrest: it has not evaluated this round"


def test_a_round_that_has_not_closed_has_no_model(ws: Workspace, s3_environment: Environment) -> None:
    with pytest.raises(RoundError, match="round 4 has not closed"):
        release_round(ws, 4, "A", s3_environment)


def test_one_wish_at_a_time(cardiofed_without_wish: subprocess.CompletedProcess[str]) -> None:
    assert cardiofed_without_wish.returncode == 2
    assert "give one of --round N, --rollback and --show" in cardiofed_without_wish.stderr


@pytest.fixture
def cardiofed_without_wish(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    import sys

    command = [sys.executable, "-c", "from flows.cli import main; main()", "release", "--runs", str(tmp_path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
