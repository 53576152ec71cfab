"""In a federation that ``cardiofed up`` has started, a hospital predicts with the model of its first round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation_files import SITES
from live_files import Federation, until
from predict_files import write_cine

from infra.process import stop_all
from tasks.homes import HUB
from tasks.ledger import close_key, evaluation_key, find_record, merged_key
from tasks.pretrain import need_base
from tasks.records import Close, model_sha256
from tasks.sealed_box import is_sealed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """One round has closed, and every hospital has adapted."""
    federation = Federation(tmp_path_factory.mktemp("live"))
    try:
        federation.up()
        federation.command("round", "start")
        keys = [evaluation_key(site, 1) for site in SITES]
        until(lambda: all(federation.store.exists(key) for key in keys), "every hospital has adapted")
        yield federation
    finally:
        stop_all(federation.root)


def test_a_hospital_of_up_predicts_compares_and_chooses(live: Federation, tmp_path: Path) -> None:
    close = find_record(live.store, close_key(1), Close)
    assert close and is_sealed(live.store.get(merged_key(1)))
    cine, common = write_cine(tmp_path / "cine.nii.gz"), ("--ed", "0", "--es", "2")
    out = {name: tmp_path / name for name in ("by-site", "by-home", "chosen")}
    said = live.command("predict", str(cine), "--out", str(out["by-site"]), "--site", SITES[0], *common)
    assert "round 1 (not released)" in " ".join(said.split())
    home = ("--home", str(live.root / "hospitals" / SITES[0]))
    live.command("predict", str(cine), "--out", str(out["by-home"]), *home, *common)
    written = [json.loads((out[name] / "results.json").read_text()) for name in ("by-site", "by-home")]
    base = need_base(live.root / HUB / "base")
    assert written[0]["model"] == written[1]["model"]
    assert written[0]["model"]["model_sha256"] == model_sha256(base, close.steps)
    assert "personal" in live.command("site", "compare", *home)
    live.command("site", "use", "personal", *home)
    live.command("predict", str(cine), "--out", str(out["chosen"]), *home, *common)
    assert json.loads((out["chosen"] / "results.json").read_text())["model"]["personal_sha256"]
