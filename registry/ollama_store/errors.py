"""Why models of an Ollama installation are not brought in: one printable line each."""

from __future__ import annotations


class FolderUnfit(Exception):
    """Not the models folder of an Ollama installation, or one that is too large to walk through."""


class ModelRefused(Exception):
    """This model is not brought in; the others may be."""


class LinkRefused(Exception):
    """A file cannot, or should not, be shared; a copy is as good. is_elsewhere: it lies on another filesystem."""

    def __init__(self, message: str, *, is_elsewhere: bool = False) -> None:
        super().__init__(message)
        self.is_elsewhere = is_elsewhere


class FileUnfit(Exception):
    """A file cannot be used. The message goes on after its name."""


class NoFile(FileUnfit):
    """No regular file stands there."""
