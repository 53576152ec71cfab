"""Partial labels: nothing is taught, scored or measured of a structure that nobody annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from federation_files import SITES, found, new_run, play_round, tiny_params, use_store
from import_files import MAKE
from monai.losses import DiceCELoss
from phantom_files import write_group
from torch import Tensor

from model.augment import augment
from model.errors import CohortError
from model.labels import LV, MYO, RV, UNKNOWN
from model.partial import PARTIAL, annotated_in, encode, is_partial, partial_loss, possible
from model.scoring import structure_dice
from model.training import Group, Training
from tasks.adapt import adapt_site
from tasks.cases import read_cases
from tasks.evaluate import clinical_table, evaluate_site
from tasks.importers.kinds import KINDS
from tasks.importers.write import import_site
from tasks.ledger import get_record, ratings_key
from tasks.prepare import prepare
from tasks.records import Ratings
from tasks.settings import Environment, load_params
from tasks.slices import load_slices

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml", ("data.crop=32", "seed=5"))
NO_RV, ALL = frozenset({MYO, LV}), frozenset({RV, MYO, LV})
COLD = torch.tensor([0.25, 1.5, 1.0, 1.0])


def whole(n: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(0, 4, (n, 8, 8), generator=torch.Generator().manual_seed(seed))


def coded(mask: Tensor, annotated: frozenset[int]) -> Tensor:
    """The mask with what is not annotated erased, as a file has it."""
    seen = torch.where(torch.isin(mask, torch.tensor(sorted(annotated))), mask, 0)
    return torch.from_numpy(encode(seen.numpy(), annotated)).long()


def logits(n: int = 3, seed: int = 1) -> Tensor:
    return torch.randn((n, 4, 8, 8), generator=torch.Generator().manual_seed(seed), requires_grad=True)


@pytest.mark.parametrize("weights", [None, COLD])
def test_with_everything_annotated_the_loss_is_the_usual_one(weights: Tensor | None) -> None:
    usual = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weights)
    out, mask = logits(), whole()
    assert partial_loss(out, mask, weights).item() == pytest.approx(
        usual(out, mask[:, None]).item(), abs=1e-6
    )


def test_what_the_mask_cannot_tell_apart_makes_no_difference() -> None:
    mask = coded(whole(), NO_RV)
    p = logits().detach().softmax(1)
    other = p.clone()
    share = torch.rand(p[:, 0].shape)
    other[:, 0], other[:, RV] = share * (p[:, 0] + p[:, RV]), (1 - share) * (p[:, 0] + p[:, RV])
    assert partial_loss(p.log(), mask).item() == pytest.approx(
        partial_loss(other.log(), mask).item(), abs=1e-5
    )


def test_an_unannotated_structure_is_never_pushed_towards_background() -> None:
    out, mask = logits(), coded(whole(), NO_RV)
    partial_loss(out, mask).backward()
    assert out.grad is not None
    p, unsure = out.detach().softmax(1), mask >= PARTIAL
    ratio = out.grad / p  # of one set both move alike: their ratio stays as it was
    assert torch.allclose(ratio[:, 0][unsure], ratio[:, RV][unsure], atol=1e-6)
    plain, taught = logits(), torch.where(unsure, 0, mask)
    DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(
        plain, taught[:, None]
    ).backward()
    assert (
        plain.grad is not None and (plain.grad[:, RV][unsure] > 0).float().mean() > 0.9
    )  # what it must not do


def test_unknown_voxels_and_batches_teach_nothing() -> None:
    out, mask = logits(), whole()
    mask[:, :4] = UNKNOWN
    partial_loss(out, mask).backward()
    assert out.grad is not None and float(out.grad[:, :, :4].abs().max()) < 1e-7
    out, nothing = logits(), torch.full((3, 8, 8), UNKNOWN)
    loss = partial_loss(out, nothing)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and float(out.grad.abs().max()) < 1e-7


def test_a_batch_of_both_kinds_counts_each_structure_where_it_was_annotated() -> None:
    mask = torch.cat([whole(2), coded(whole(1), frozenset({LV}))])
    assert annotated_in(mask).tolist() == [[True] * 3, [True] * 3, [False, False, True]]
    assert possible(mask).any(1).all() and is_partial(mask) and not is_partial(mask[:2])
    sure = logits()
    perfect = torch.where(possible(mask), 20.0, -20.0) + 0 * sure
    assert partial_loss(perfect, mask).item() < 0.35  # only the ambiguous softmax mass is left


def test_a_training_step_with_whole_masks_is_what_it_was() -> None:
    def run(partial: bool) -> Tensor:
        net = torch.nn.Conv2d(1, 4, 1)
        with torch.no_grad():
            net.weight.fill_(0.1), net.bias.zero_()
        image, mask = torch.ones((3, 1, 8, 8)), whole()
        if partial:
            mask[0, 0, 0] = UNKNOWN
        training = Training(
            net, [Group(net.parameters(), 0.1)], lambda *_: (image, mask), 3, 0.0, torch.Generator()
        )
        training.step()
        return net.weight.detach().clone()

    assert torch.equal(run(False), run(False))
    assert not torch.equal(run(False), run(True))


def test_augmentation_brings_in_what_is_as_unknown_as_the_slice() -> None:
    mask, images = coded(whole(2), NO_RV), torch.rand((2, 1, 8, 8))
    mask[1] = whole(1)[0]
    _, turned = augment(images, mask, torch.Generator().manual_seed(3))
    assert set(turned[0].unique().tolist()) <= {PARTIAL + (1 << RV), MYO, LV}
    assert turned[1].max() < PARTIAL and (turned[1] == 0).any()


def test_dice_of_a_missing_structure_is_undefined_and_unknown_voxels_do_not_count() -> None:
    true, predicted = coded(whole(2), NO_RV), whole(2, seed=7)
    dice = structure_dice(predicted, true)
    assert dice[:, 0].isnan().all() and not dice[:, 1:].isnan().any()
    assert torch.equal(dice[:, 1:], structure_dice(predicted, whole(2))[:, 1:])
    assert structure_dice(whole(1), torch.full((1, 8, 8), UNKNOWN)).isnan().all()
    holed = whole(1)
    holed[:, :4] = UNKNOWN
    assert torch.equal(
        structure_dice(predicted[:1], holed), structure_dice(predicted[:1, 4:], whole(1)[:, 4:])
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ACDC patients, imported; the RV of all of them struck from the table, one slice of each unknown."""
    root = tmp_path_factory.mktemp("cohort")
    write_group(root / "in", "NOR", 3, first=1)
    import_site(KINDS["acdc"], root / "in", "a", root / "a")
    table = root / "a" / "cases.csv"
    table.write_text(table.read_text().replace("RV MYO LV", "MYO LV"))
    import nibabel as nib

    for path in (root / "a").rglob("*_mask.nii.gz"):
        image = nib.load(path)
        mask = np.asarray(image.dataobj).copy()
        mask[mask == RV] = 0
        mask[..., 0] = UNKNOWN
        nib.save(nib.Nifti1Image(mask, image.affine), path)
    prepare(root, "imported", "folder", root / "home", PARAMS)
    return root


def test_prepared_slices_carry_what_is_unknown_and_leave_blank_ones_out(cohort: Path) -> None:
    slices = load_slices(cohort / "home" / "a", "train")
    assert len(slices.z) == 2 * 4 and 0 not in slices.z.tolist()
    assert not annotated_in(slices.masks)[:, 0].any() and annotated_in(slices.masks)[:, 1:].all()
    assert {row.labels for row in read_cases(cohort / "home" / "a")} == {"MYO LV"}


def test_evaluation_leaves_missing_structures_undefined_never_zero(cohort: Path) -> None:
    def all_background(images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1, 1).expand(len(images), 4, 32, 32).clone()

    frame = evaluate_site(all_background, cohort / "home" / "a", "test")
    by = frame.set_index(["structure", "phase"])
    assert by.loc["RV", "dice"].isna().all() and by.loc["RV", "true_ml"].isna().all()
    assert (by.loc["LV", "dice"] == 0).all()  # it was annotated, and missed
    assert by.loc["LV", "true_ml"].isna().all()  # a slice nobody annotated: no whole volume
    table = clinical_table(frame)
    assert table["rv_ef_true_percent"].isna().all() and table["lv_ef_true_percent"].isna().all()


def test_an_import_prepares_the_same_slices_as_the_archive_itself(tmp_path: Path) -> None:
    write_group(tmp_path / "in", "NOR", 3, first=1)
    import_site(KINDS["acdc"], tmp_path / "in", "a", tmp_path / "copy" / "a")
    prepare(tmp_path / "in", "acdc", "site:a", tmp_path / "direct", PARAMS)
    prepare(tmp_path / "copy", "imported", "folder", tmp_path / "imported", PARAMS)

    def pictures(home: Path) -> set[bytes]:
        parts = [load_slices(home / "a", side) for side in ("train", "validation", "test")]
        return {
            i.numpy().tobytes() + m.numpy().tobytes()
            for s in parts
            for i, m in zip(s.images, s.masks, strict=True)
        }

    assert pictures(tmp_path / "direct") == pictures(tmp_path / "imported")


def test_a_patient_without_any_mask_is_refused_for_training(tmp_path: Path) -> None:
    source = MAKE["dicom"](tmp_path / "in")
    for path in source.rglob("*_mask.nii.gz"):
        path.unlink()
    with pytest.raises(CohortError, match="no mask"):
        prepare(source, "dicom", "site:a", tmp_path / "run" / "cohort", PARAMS)


@pytest.mark.parametrize(("patients", "validation"), [(1, 0), (2, 1)])
def test_a_small_site_takes_part_as_far_as_its_patients_reach(
    patients: int,
    validation: int,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    s3_environment: Environment,
) -> None:
    use_store(monkeypatch, s3_environment)
    ws = new_run(tmp_path_factory, tmp_path / "run", "data.small_sites=true")
    write_group(tmp_path / "in", "NOR", patients, first=90)
    with pytest.raises(CohortError, match="small_sites"):
        prepare(tmp_path / "in", "acdc", "site:tiny", ws.cohort, tiny_params())
    (card,) = prepare(tmp_path / "in", "acdc", "site:tiny", ws.cohort, ws.params)
    assert card.patients == {"train": 1, "validation": validation, "test": 0}
    close = play_round(found(ws), 1, (*SITES, "tiny"))
    assert "tiny" in close.participants
    ratings = get_record(ws.store, ratings_key("tiny", 1), Ratings)
    assert any(rating.aspects for rating in ratings.scores.values()) == bool(validation)
    assert adapt_site(ws, 1, "tiny").kept >= 0
