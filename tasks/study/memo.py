"""Answers of pure computations, kept on disk: cells that take the same step take it once.

Every cell of a split starts from the same base, and a rating that changes no weight changes nothing else, so many
cells share whole rounds. An answer is found by all that determines it, the code included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from tasks.files import write_atomic


@dataclass(frozen=True)
class Memo:
    """A folder of answers.

    Attributes:
        folder: made on first use; may be deleted at any time.
        version: of the code that computes.
    """

    folder: Path
    version: str

    def recall(self, compute: Callable[[], Mapping[str, Tensor]], *parts: object) -> dict[str, Tensor]:
        """The answer to these parts, computed unless it is kept.

        Args:
            compute: gives named tensors; must depend on nothing but the parts and the code.
            parts: tensors by their bytes, mappings of tensors by name, everything else by its ``repr``.

        Returns:
            The tensors, to the last bit as they were computed.
        """
        digest = hashlib.sha256(self.version.encode())
        for part in parts:
            _feed(digest, part)
        name = digest.hexdigest()[:40]
        path = self.folder / name[:2] / name
        if path.exists():
            return load(path.read_bytes())
        answer = {key: t.contiguous() for key, t in compute().items()}
        write_atomic(path, save(answer))
        return answer


def _feed(digest: hashlib._Hash, part: object) -> None:
    if isinstance(part, Tensor):
        digest.update(f"|{part.dtype}{tuple(part.shape)}|".encode())
        digest.update(part.detach().contiguous().numpy().tobytes())
    elif isinstance(part, Mapping):
        for key in sorted(part):
            digest.update(f"|{key}".encode())
            _feed(digest, part[key])
    else:
        digest.update(f"|{part!r}".encode())
