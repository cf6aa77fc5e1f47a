"""What the store refuses, raised where the fact is known and turned into HTTP in one table."""

from __future__ import annotations


class StorageError(Exception):
    """The store refuses. `detail` is JSON-ready and safe to show to a client."""

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail


class DigestInvalid(StorageError):
    """Malformed, of an algorithm we do not know, or not the digest of the bytes."""


class NameInvalid(StorageError):
    """Not a repository name."""


class TagInvalid(StorageError):
    """Not a tag."""


class NameTaken(StorageError):
    """A namespace of that name is already there."""


class NameUnknown(StorageError):
    """No such repository."""


class TagMoved(StorageError):
    """The tag does not name what the push said it must name. `digest`: what it names, None if there is no such tag."""


class ManifestUnknown(StorageError):
    """No such manifest or tag in this repository."""


class ManifestInvalid(StorageError):
    """The manifest cannot be read, or contradicts itself."""


class ManifestTooLarge(ManifestInvalid):
    """More bytes than a manifest may have."""


class ManifestBlobUnknown(StorageError):
    """The manifest lists blobs or manifests that this repository does not hold; `missing` has their descriptors."""


class BlobUnknown(StorageError):
    """No such blob in this repository."""


class BlobDamaged(StorageError):
    """The stored bytes are not what their digest says."""


class BlobReferenced(StorageError):
    """A manifest of the repository still needs the blob."""


class UploadUnknown(StorageError):
    """No such upload session in this repository."""


class UploadBusy(StorageError):
    """Another request is writing to the session. `offset`: bytes that are safely stored."""


class StagedBusy(StorageError):
    """Somebody else has the staged bytes open for writing: a writer that stands still, and may yet wake up."""


class ChunkOutOfOrder(StorageError):
    """The chunk does not begin where the session ends. `offset`: bytes that are safely stored."""


class SizeInvalid(StorageError):
    """The body is not as long as its headers say."""


class KeyUnknown(StorageError):
    """The driver holds nothing at that key."""


class StorageFull(StorageError):
    """No space left for the bytes; what was stored before is kept."""


class StorageUnavailable(StorageError):
    """The database or the driver cannot be reached for now."""


class CopiesInUse(StorageUnavailable):
    """Local copies of blobs have no room for another one, since those that could go are in use."""

    @property
    def lacking(self) -> int:
        """How many bytes of them would have to go."""
        found = self.detail.get("lacking")
        return found if isinstance(found, int) else 0


class TransactionLost(StorageUnavailable):
    """The database gave the transaction up so that another one could end; the same again will most likely succeed."""
