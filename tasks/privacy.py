"""What may be said outside a site about an error: its kind and its cure, never a path, a file or a patient."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import CardiofedError, DataError, DiskError

_log = logging.getLogger("cardiofed.site")
"""Local: nothing hands its lines to the hub."""

_SAID = "details stand in errors.log in the site's own folder"
ERRORS_FILE = "errors.log"


def keep_errors(home: Path) -> None:
    """Write what is concealed from others to ``home/errors.log``.

    Args:
        home: a folder that never leaves the site.
    """
    kept = logging.FileHandler(home / ERRORS_FILE, delay=True)
    kept.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for before in _log.handlers:
        before.close()
    _log.handlers[:] = [kept]


def without_traceback(record: logging.LogRecord) -> bool:
    """A filter for loggers whose lines leave the site: a traceback is full of local paths."""
    record.exc_info = record.exc_text = None
    return True


@contextmanager
def concealed() -> Iterator[None]:
    """Keep what an error says about local files on this machine.

    Errors about data and disks, and errors nobody foresaw, are logged here in full and raised again without
    their text; errors about settings, the store, packages and rounds speak of shared things and pass.

    Raises:
        DataError: of the same class, without values.
        DiskError: likewise.
        CardiofedError: in place of an unforeseen error, naming its class.
    """
    try:
        yield
    except (DataError, DiskError) as error:
        _log.error("%s", error)
        said = (type(error).__doc__ or "").strip()
        raise type(error)(said, "a site's own files", _SAID) from None
    except CardiofedError:
        raise
    except Exception as error:
        _log.error("%s", traceback.format_exc())
        raise CardiofedError(f"unforeseen {type(error).__name__}", "a site's own work", _SAID) from None
