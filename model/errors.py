"""Every error a user can meet, and the exit code it ends with.

CardiofedError                1
├── ConfigError               2  a setting is unknown, of the wrong type or out of bounds
├── DataError                 3  a site's data cannot be used as it is
│   ├── PairError                an image without mask, or a mask without image
│   ├── GeometryError            shapes, affines or spacing missing or contradictory
│   ├── LabelError               a mask holds labels outside the federation's map
│   ├── IntensityError           NaN, infinite or constant image
│   ├── UnreadableError          truncated or foreign file
│   ├── PhaseError               ED and ES missing or the same frame
│   └── CohortError              one patient on two sides, too few patients
├── StoreError                4  the object store
│   ├── StoreUnreachableError    no answer from the endpoint
│   ├── StoreDeniedError         wrong credentials, or a key this user may not touch
│   ├── ObjectMissingError       nothing under this key
│   └── IntegrityError           the bytes are not the ones that were announced
├── PackageError              5  an adapter package that does not fit the round
│   ├── PassportError            base, architecture, labels, spacing or round differ
│   ├── RankError                factors that do not multiply, or a rank beyond the limit
│   └── ShapeError               unknown layer, wrong shape, wrong dtype, not finite
├── RoundError                6  the protocol cannot go on (quorum missed, nothing to merge)
├── ServerError               7  an embedded server did not start (port taken, crashed), or a service not answer
│   └── NotAskedError            a public service could not be asked, so nothing is known either way
├── DiskError                 8  a file could not be written whole
├── TrustError                9  something is not what its author made, or its author is nobody we know
│   ├── AuditError               the audit log lacks an entry, or holds one that was changed
│   ├── SignatureError           no signature, a wrong one, or one for another place
│   ├── KeyFileError             a private key that is missing, open to others, or locked
│   └── DecryptionError          encrypted for other keys than we have, or changed since
└── ReleaseRefusedError      10  a model would serve some patients worse than the one in use
"""


class CardiofedError(Exception):
    """What is wrong, where, and how to mend it.

    Args:
        what: one sentence naming the fault and the value that caused it.
        where: file, object key, setting or layer.
        mend: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.what, self.where, self.mend = what, where, mend

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)


class ConfigError(CardiofedError):
    """A setting is unknown, of the wrong type or out of bounds."""

    exit_code = 2


class DataError(CardiofedError):
    """A site's data cannot be used as it is."""

    exit_code = 3


class PairError(DataError):
    """An image without mask, or a mask without image."""


class GeometryError(DataError):
    """Shapes, affines or spacing are missing or contradictory."""


class LabelError(DataError):
    """A mask holds labels outside the federation's map."""


class IntensityError(DataError):
    """An image is constant, or holds NaN or infinite values."""


class UnreadableError(DataError):
    """A file is truncated or not of the format its name promises."""


class PhaseError(DataError):
    """ED and ES are missing, or the same frame."""


class CohortError(DataError):
    """A patient stands on two sides of a split or at two sites, or a site has too few."""


class StoreError(CardiofedError):
    """The object store did not do what was asked."""

    exit_code = 4


class StoreUnreachableError(StoreError):
    """The endpoint does not answer."""


class StoreDeniedError(StoreError):
    """The credentials are wrong, or this user may not touch this key."""


class ObjectMissingError(StoreError):
    """There is nothing under this key."""


class IntegrityError(StoreError):
    """The bytes that arrived are not the bytes that were announced."""


class PackageError(CardiofedError):
    """An adapter package does not fit the round."""

    exit_code = 5


class PassportError(PackageError):
    """Base, architecture, label map, spacing or round differ from the plan."""


class RankError(PackageError):
    """Factors do not multiply, or their rank is beyond the limit."""


class ShapeError(PackageError):
    """A layer is unknown, or its factors have the wrong shape, dtype or values."""


class RoundError(CardiofedError):
    """The protocol cannot go on: quorum missed, or nothing to merge."""

    exit_code = 6


class ServerError(CardiofedError):
    """An embedded server did not start or died."""

    exit_code = 7


class NotAskedError(ServerError):
    """A public service could not be asked, so nothing is known either way."""


class DiskError(CardiofedError):
    """A file could not be written whole."""

    exit_code = 8


class TrustError(CardiofedError):
    """Something is not what its author made, or its author is nobody we know."""

    exit_code = 9


class AuditError(TrustError):
    """The audit log is not the one that was written: an entry is missing, changed, out of order or added."""


class SignatureError(TrustError):
    """There is no signature, a wrong one, or one that was made for another place."""


class KeyFileError(TrustError):
    """A private key is missing, open to others, locked, or no key at all."""


class DecryptionError(TrustError):
    """Something was encrypted for other keys than we have, or changed since."""


class ReleaseRefusedError(CardiofedError):
    """A model would serve some patients worse than the one in use."""

    exit_code = 10
