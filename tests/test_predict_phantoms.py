"""Volumes and ejection fractions of phantoms against their analytic truth, with true masks for the network's."""

from __future__ import annotations

import numpy as np
import pytest

from model.phantom import draw_patient, render, volumes_ml
from model.phantom_anatomy import GROUPS
from model.scanner import TEXTBOOK
from tasks.predict.result import function_of, ventricle_result


@pytest.mark.parametrize("group", GROUPS)
def test_true_masks_give_the_analytic_volumes_and_ef_within_two_percent(group: str) -> None:
    patient = draw_patient(group, TEXTBOOK.slices, np.random.default_rng(7))
    masks = np.stack([render(patient, phase, TEXTBOOK)[1] for phase in ("ED", "ES")])
    function = function_of(masks, 0, 1, (TEXTBOOK.pitch_mm, TEXTBOOK.spacing_mm, TEXTBOOK.spacing_mm))
    assert function is not None
    found = ventricle_result(function.lv)
    edv_ml, esv_ml = volumes_ml(patient, TEXTBOOK)
    assert found.edv_ml == pytest.approx(edv_ml, rel=0.02)
    assert found.esv_ml == pytest.approx(esv_ml, rel=0.02)
    assert found.ef_percent == pytest.approx(100 * (edv_ml - esv_ml) / edv_ml, rel=0.02)
