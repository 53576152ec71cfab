"""No pickle is loaded: one in place of any file we read is refused, and what it would run does not run."""

from __future__ import annotations

import ast
import io
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydicom
import pytest
import report_files as files
import torch
from dicom_files import enhanced, image, stack, write
from federation_files import found, new_run, play_round, use_store
from import_files import MAKE
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from model.errors import (
    CardiofedError,
    ConfigError,
    DataError,
    KeyFileError,
    PackageError,
    SignatureError,
    UnreadableError,
)
from model.package import unpack_adapter
from model.training import Training
from tasks.cases import CASES_FILE, SiteCard, read_cases, read_volume
from tasks.checkpoint import _resume
from tasks.dicom.cine import read_cine
from tasks.dicom.inspect import inspect
from tasks.enrol import read_card
from tasks.files import sha256_bytes
from tasks.history import read_history
from tasks.homes import HOME_FILE, read_home, read_invitation
from tasks.importers.canonical import read_imported
from tasks.importers.kinds import KINDS
from tasks.importers.write import import_site
from tasks.keys import read_key
from tasks.ledger import base_key, card_key, get_record, put_record, roster_key
from tasks.pretrain import read_base
from tasks.registered import Roster, SiteKey
from tasks.settings import Environment, load_params
from tasks.slices import load_slices
from tasks.store import Store
from tasks.summary import read_cases as read_table
from tasks.trust import have_all_identities, with_seals
from tasks.unpack import open_package
from tasks.weights import base_weights
from tasks.workspace import open_workspace

ROOT = Path(__file__).parent.parent
LAYERS = ("model", "tasks", "flows", "infra")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._mark), "x")


def arrays(bomb: Bomb) -> bytes:
    """Cached slices whose arrays hold objects."""
    objects = np.array([bomb], dtype=object)
    return _saved(
        lambda file: np.savez(file, images=objects, masks=objects, patient=objects, phase=objects, z=objects)
    )


def _saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


FLAVOURS: dict[str, Callable[[Bomb], bytes]] = {
    "protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "protocol 5": lambda bomb: pickle.dumps(bomb, 5),
    "torch": lambda bomb: _saved(lambda file: torch.save(bomb, file)),
    "npy": lambda bomb: _saved(lambda file: np.save(file, np.array([bomb], dtype=object))),
    "npz": arrays,
}


@pytest.fixture(params=FLAVOURS)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bytes]:
    """The bytes; nothing may have run when the test is over."""
    mark = tmp_path / "it-ran"
    yield FLAVOURS[request.param](Bomb(mark))
    assert not mark.exists()


_WATCHING: list[list[str]] = []
_HOOKED: list[bool] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and _WATCHING:
        _WATCHING[-1].append(".".join(map(str, arguments)))


@pytest.fixture
def unpickled() -> Iterator[list[str]]:
    """Everything that any unpickler of this process looks up from here on; the interpreter itself tells."""
    if not _HOOKED:  # a hook stays for good
        sys.addaudithook(_watch)
        _HOOKED.append(True)
    _WATCHING.append([])
    yield _WATCHING[-1]
    _WATCHING.clear()


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it-ran"))).close()
    assert (tmp_path / "it-ran").exists()
    (tmp_path / "it-ran").unlink()
    with np.load(io.BytesIO(arrays(Bomb(tmp_path / "it-ran"))), allow_pickle=True) as stored:
        stored["images"][0].close()
    assert (tmp_path / "it-ran").exists()


def read_round(path: Path) -> object:
    folder = path.parent / "0001"
    folder.mkdir()
    path.rename(folder / "plan.json")
    return read_history(path.parent)


READERS: dict[str, tuple[str, type[CardiofedError], Callable[[Path], object]]] = {
    "adapter": ("adapter.safetensors", PackageError, lambda p: unpack_adapter(p.read_bytes())),
    "card": ("card.json", UnreadableError, lambda p: read_card(p.parent)),
    "case table": (CASES_FILE, UnreadableError, lambda p: read_cases(p.parent)),
    "slices": ("train.npz", UnreadableError, lambda p: load_slices(p.parent, "train")),
    "image": ("image.nii", UnreadableError, read_volume),
    "packed image": ("image.nii.gz", UnreadableError, read_volume),
    "home": (HOME_FILE, ConfigError, lambda p: read_home(p.parent)),
    "invitation": ("invitation", ConfigError, read_invitation),
    "run": ("params.json", ConfigError, lambda p: open_workspace(p.parent)),
    "settings": ("params.yaml", ConfigError, load_params),
    "mirrored record": ("plan.json", SignatureError, read_round),
}


@pytest.mark.parametrize("what", READERS)
def test_a_pickle_in_place_of_a_file_is_refused(what: str, hostile: bytes, tmp_path: Path) -> None:
    name, kind, read = READERS[what]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / name).write_bytes(hostile)
    with pytest.raises(kind):
        read(tmp_path / "home" / name)


def test_a_pickle_in_place_of_a_key_is_refused(hostile: bytes, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(hostile)
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "key.pem")


def test_a_pickle_in_place_of_the_table_of_results_is_no_table(hostile: bytes, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(hostile)
    with pytest.raises((CardiofedError, ValueError)):
        read_table(tmp_path / "cases.csv")


def test_a_pickle_in_place_of_the_bases_record_is_no_base(hostile: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_bytes(hostile)
    assert read_base(tmp_path) is None


def test_a_pickle_in_place_of_a_checkpoint_is_removed_and_training_starts_over(
    hostile: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "training.safetensors"
    path.write_bytes(hostile)
    _resume(cast(Training, None), path, "identity")  # nothing to restore, so the training is not touched
    assert not path.exists()


def test_a_pickle_in_place_of_what_the_store_holds_is_refused(
    hostile: bytes, store: Store, tmp_path: Path
) -> None:
    base = files.BASE.model_copy(update={"sha256": sha256_bytes(hostile)})
    store.put(base_key(base.sha256), hostile)
    with pytest.raises(PackageError, match="no safetensors file"):
        base_weights(store, base, tmp_path / "site")
    store.put(card_key("st-anna"), hostile)
    known = have_all_identities(tmp_path, ("st-anna",))
    with_seals(store, tmp_path)
    keys = {"st-anna": (SiteKey(identity=known["st-anna"], state="valid"),)}
    put_record(store, roster_key(), Roster(sites=("st-anna",), keys=keys))
    with pytest.raises(SignatureError, match="carries no seal"):
        get_record(store, card_key("st-anna"), SiteCard)
    with pytest.raises(PackageError):
        open_package(hostile, {"w": (2, 2)}, 4)


PARTS = {
    "acdc": ("*/Info.cfg", "*/*_frame01.nii.gz", "*/*_frame03_gt.nii.gz"),
    "mnms": ("info.csv", "A0S9V9/*_sa.nii.gz", "A0S9V9/*_sa_gt.nii.gz"),
    "nifti": ("dataset.json", "imagesTr/*_ED_0000.nii.gz", "labelsTr/*_ES.nii.gz", "phases.csv"),
    "dicom": ("phases.csv", "dataset.json", "*/7.dcm", "*/ED_mask.nii.gz"),
    "sunnybrook": ("SCD01/7.dcm", "SCD01_contours/IM-0001-0008-icontour-manual.txt"),
}
"""A file of every sort in an archive of each kind; tables that are read only where they are there come anew."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: MAKE[kind](tmp_path_factory.mktemp(kind) / "archive") for kind in KINDS}


def test_every_importer_has_its_files_tried(archives: dict[str, Path], tmp_path: Path) -> None:
    assert set(PARTS) == set(KINDS)
    for kind, archive in archives.items():
        assert import_site(KINDS[kind], archive, "site", tmp_path / kind).patients >= 1
        tried = {path.suffix for pattern in PARTS[kind] for path in archive.glob(pattern)}
        assert {path.suffix for path in archive.rglob("*") if path.is_file()} <= tried


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind in PARTS for part in PARTS[kind]])
def test_a_pickle_in_place_of_a_file_of_an_archive_is_refused(
    kind: str, part: str, hostile: bytes, archives: dict[str, Path], unpickled: list[str], tmp_path: Path
) -> None:
    shutil.copytree(archives[kind], tmp_path / "in")
    for path in list((tmp_path / "in").glob(part)) or [tmp_path / "in" / part]:
        path.write_bytes(hostile)
    with pytest.raises(DataError):
        import_site(KINDS[kind], tmp_path / "in", "site", tmp_path / "out")
    assert unpickled == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["cases.csv", "*/ED.nii.gz", "*/ES_mask.nii.gz"])
def test_a_pickle_in_place_of_an_imported_file_is_refused(
    part: str, hostile: bytes, archives: dict[str, Path], unpickled: list[str], tmp_path: Path
) -> None:
    import_site(KINDS["nifti"], archives["nifti"], "site", tmp_path / "out")
    for path in (tmp_path / "out").glob(part):
        path.write_bytes(hostile)
    with pytest.raises(DataError):
        read_imported(tmp_path / "out")
    assert unpickled == []


def behind_the_preamble(data: bytes, folder: Path) -> None:
    (write(folder, list(stack().values())) / "0003.dcm").write_bytes(bytes(128) + b"DICM" + data)


def named_otherwise(data: bytes, folder: Path) -> None:
    write(folder, [image(0, 0)])
    (folder / "IM0001").write_bytes(data)


def among_frames(data: bytes, folder: Path) -> None:
    one = enhanced()
    one.PixelData = (data * (1 + len(one.PixelData) // len(data)))[: len(one.PixelData) - 2]
    write(folder, [one])


def as_jpeg_2000(data: bytes, folder: Path) -> None:
    _compressed(data, folder, JPEG2000Lossless)


def as_run_lengths(data: bytes, folder: Path) -> None:
    _compressed(data, folder, RLELossless)


def _compressed(data: bytes, folder: Path, syntax: pydicom.uid.UID) -> None:
    images = list(stack().values())
    for each in images:
        each.file_meta.TransferSyntaxUID = syntax
        each.PixelData = encapsulate([data + bytes(len(data) % 2)])
        each["PixelData"].VR = "OB"
    write(folder, images)


@pytest.mark.parametrize(
    "hide", [behind_the_preamble, named_otherwise, among_frames, as_jpeg_2000, as_run_lengths]
)
def test_a_pickle_inside_a_dicom_export_is_refused_and_never_loaded(
    hide: Callable[[bytes, Path], None], hostile: bytes, unpickled: list[str], tmp_path: Path
) -> None:
    hide(hostile, tmp_path / "export")
    with pytest.raises(DataError):
        read_cine(tmp_path / "export")
    with suppress(DataError):
        inspect(tmp_path / "export")
    assert unpickled == []


def test_a_pickle_in_a_private_tag_stays_bytes(hostile: bytes, unpickled: list[str], tmp_path: Path) -> None:
    images = list(stack().values())
    for each in images:
        each.private_block(0x0099, "ACME", create=True).add_new(1, "OB", hostile + bytes(len(hostile) % 2))
    assert read_cine(write(tmp_path / "export", images)).values.shape[0] > 1
    assert unpickled == []


def test_a_whole_round_unpickles_nothing(
    unpickled: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pickle.loads(pickle.dumps(ValueError()))
    assert unpickled == ["builtins.ValueError"]
    unpickled.clear()
    use_store(monkeypatch, s3_environment)
    ws = found(new_run(tmp_path_factory, tmp_path / "run"))
    assert play_round(ws, 1).round == 1
    assert unpickled == []


_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
}
_UNSAFE_YAML = {"UnsafeLoader", "FullLoader", "Loader", "CLoader"}


def faults(source: str) -> Iterator[str]:
    """What in a source can run foreign bytes, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in _MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only"
            if called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
                yield f"{node.lineno}: np.load of objects"
            if called == "yaml.load" and _UNSAFE_YAML & {
                ast.unparse(a).split(".")[-1] for a in node.args[1:]
            }:
                yield f"{node.lineno}: yaml.load of objects"
            if called.endswith(("read_pickle", "unsafe_load", "full_load")) or called in ("eval", "exec"):
                yield f"{node.lineno}: {called}"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_code_path_unpickles(layer: str) -> None:
    sources = sorted((ROOT / layer).rglob("*.py"))
    assert len(sources) > 5
    assert [f"{path.name}:{fault}" for path in sources for fault in faults(path.read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, yaml.FullLoader)",
        "yaml.unsafe_load(t)",
        "pd.read_pickle(p)",
        "eval(t)",
    ],
)
def test_a_code_path_that_unpickles_would_be_found(source: str) -> None:
    assert list(faults(source))
