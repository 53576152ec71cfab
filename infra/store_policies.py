"""What a site and the hub may do in the store, as S3 policies: the templates of ``infra/policies``, filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from model.errors import ConfigError
from tasks.homes import HUB
from tasks.ledger import checked_name

Kind = Literal["aws", "minio"]
"""``aws`` adds that requests come over TLS; ``minio`` stands for every store that knows MinIO's calls."""

_TEMPLATES = Path(__file__).parent / "policies"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def store_policy(name: str, bucket: str, kind: Kind = "minio") -> dict[str, object]:
    """The policy of one machine's user.

    A site reads and lists ``global/`` and its own prefix, and writes the latter. The hub reads and lists everything
    and writes ``global/``, ``hub/`` and ``dvc/``. Nobody deletes, and nobody administers users, policies or buckets.
    Where the store knows MinIO's calls, a site may change its own secret: an invitation has told the first.

    Args:
        name: of the site, or ``hub``.
        bucket: the federation's.
        kind: of store.

    Returns:
        The policy document.

    Raises:
        ConfigError: the name or the bucket cannot stand in a policy.
    """
    checked_name(name)
    if not _BUCKET.fullmatch(bucket):
        mend = "use 3 to 63 of a-z, 0-9, '-' and '.'"
        raise ConfigError(f"{bucket[:80]!r} is no bucket's name", "bucket", mend)
    text = (_TEMPLATES / f"{HUB if name == HUB else 'site'}.{kind}.json").read_text()
    policy: dict[str, object] = json.loads(text.replace("BUCKET", bucket).replace("NAME", name))
    return policy
