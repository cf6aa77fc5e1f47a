"""Why models cannot be carried out or brought in: one clear line each, saying where possible what to do about it."""

from __future__ import annotations


class CarryError(Exception):
    """An export or an import cannot go on. `str()` is one printable line for a person."""


class ExportRefused(CarryError):
    """What was asked for cannot stand in one archive, or is not all here."""


class BlobDamaged(CarryError):
    """Bytes are not what their digest says: those of this store, or those of the archive."""


class ArchiveInvalid(CarryError):
    """Not an archive of models, not a whole one, or one that was made to harm."""


class SignerUnknown(CarryError):
    """The archive is not signed, or by a key that the operator has not named."""


class ModelRefused(CarryError):
    """This model of the archive cannot be brought in; the others can."""
