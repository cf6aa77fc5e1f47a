"""The names that requests about stored models carry. Source: the Ollama API, "Model names"."""

from __future__ import annotations

from dataclasses import replace

from registry.audit import record_push
from registry.services import store
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from storage.errors import ManifestUnknown, NameInvalid, NameUnknown
from storage.reference import ModelName
from storage.repositories import StoredManifest

_INVALID = "invalid model name"
_LONGEST_ECHO = 500


def parse_named(text: str, otherwise: str) -> ModelName:
    """`parse_name` in the words of a route for what is no name: `otherwise`, with the text in it. Raises Refused."""
    try:
        return parse_name(text)
    except Refused as error:
        if str(error) != _INVALID:
            raise
        raise Refused(400, otherwise.format(text[:_LONGEST_ECHO])) from None


def parse_removable(text: str) -> ModelName:
    """The name of something to delete: here `:cloud` is a tag like any other. Raises Refused."""
    try:
        return parse_named(text, 'name "{}" is invalid')
    except Refused as error:
        if error.status != 403:
            raise
    try:
        return ModelName.parse(text)
    except NameInvalid:
        raise Refused(400, f'name "{text[:_LONGEST_ECHO]}" is invalid') from None


def as_stored(name: ModelName) -> ModelName:
    """The name with its tag as it is spelt already, if it is; else as it was asked for."""
    try:
        return replace(name, tag=store().repositories.resolve_tag(name.repository, name.tag))
    except (NameUnknown, ManifestUnknown):
        return name


def tag_moved(target: ModelName, stored: StoredManifest) -> None:
    """What is left to do once a name has got its manifest: the audit row, and the end of what it named before.

    That goes, as a deleted model does, unless something else names it.
    """
    record_push(target.repository, target.tag, stored, [target.tag])
    for _, before in stored.replaced:
        if before != stored.digest:
            store().repositories.remove_untagged(target.repository, before)
