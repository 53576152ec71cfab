"""One run's folder on this machine, its settings and its store: what every task is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from model.errors import ConfigError
from tasks.settings import Params, load_environment
from tasks.store import Store
from tasks.trust import with_seals
from tasks.trusted_ca import trust_ca


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps its files; nothing is written outside.

    Attributes:
        root: the run's folder. ``cohort/<site>/`` and ``sites/<site>/`` stand for that hospital's machine: only
            tasks of that site read or write there.
        params: settings of the run.
    """

    root: Path
    params: Params

    @cached_property
    def store(self) -> Store:
        """The object store named by the environment, with the keys in this folder."""
        return with_seals(Store(load_environment()), self.root)

    @property
    def cohort(self) -> Path:
        """Parent of the sites' prepared data."""
        return self.root / "cohort"

    def data_home(self, site: str) -> Path:
        """One hospital's case table, cached slices and card."""
        return self.cohort / site

    def site_home(self, site: str) -> Path:
        """One hospital's working folder: adapters, checkpoints, events."""
        return self.root / "sites" / site

    @property
    def hub_home(self) -> Path:
        """The hub's working folder."""
        return self.root / "hub"

    @property
    def base_home(self) -> Path:
        """Where the pretrained base lies, under its hash, with ``base.json``."""
        return self.root / "base"

    @property
    def versions(self) -> Path:
        """The run's own git and DVC repository, with ``rounds/NNNN``."""
        return self.root / "versions"

    @property
    def federation(self) -> Path:
        """What the rounds published, as plain files: ``rounds/NNNN`` and ``personal/<site>.safetensors``."""
        return self.root / "federation"

    @property
    def rounds(self) -> Path:
        """Published records and adapters, a folder per round."""
        return self.federation / "rounds"

    @property
    def evaluation(self) -> Path:
        """Where the evaluate stage writes."""
        return self.root / "evaluation"


def open_workspace(root: str | Path) -> Workspace:
    """Open a run that was set up before; the CA in its folder, if any, is trusted from here on.

    Args:
        root: the run's folder.

    Returns:
        The run's workspace, with the settings it was set up with.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = Path(root) / "params.json"
    trust_ca(Path(root))
    try:
        return Workspace(Path(root), Params.model_validate_json(path.read_bytes()))
    except (OSError, ValidationError) as e:
        raise ConfigError(f"no usable run: {e}", str(path), "start it with `cardiofed demo`") from e
