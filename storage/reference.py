"""What people type: repository names, tags, and the short model names of the Ollama dialect."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from storage.digest import Digest
from storage.errors import NameInvalid, TagInvalid

MAX_NAME: Final = 255  # clients refuse longer ones
DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"
HOLDING: Final = "_staged"  # begins as no component that somebody can ask for


_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOLDING_NAME: Final = re.compile(rf"{HOLDING}/[0-9a-f]{{64}}")

_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_MODEL_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST_PORT: Final = re.compile(r"(?P<name>[^:]+):(?P<port>[0-9]{1,5})")
_STORED_PORT: Final = re.compile(r"(?P<name>.+)__(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """Lower-case path components joined by `/`. Spec: "Pulling manifests"."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_NAME or not _NAME.fullmatch(self.text):
            raise NameInvalid("invalid repository name", name=self.text[:MAX_NAME])

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Raises NameInvalid."""
        return cls(text)

    @property
    def namespace(self) -> str:
        """The first component: what grants attach to."""
        return self.text.partition("/")[0]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class HoldingName(RepositoryName):
    """Where the blobs of one caller wait for a repository. No text of a request parses to it, and no list names it."""

    def __post_init__(self) -> None:
        if not _HOLDING_NAME.fullmatch(self.text):
            raise NameInvalid("not a holding place", name=self.text[:MAX_NAME])

    @classmethod
    def of(cls, principal: str) -> HoldingName:
        """The place of whoever is called so."""
        return cls(f"{HOLDING}/{hashlib.sha256(principal.encode()).hexdigest()}")


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A movable name for one manifest of a repository; its case counts."""

    text: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.text):
            raise TagInvalid("invalid tag", tag=self.text[:160])

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Raises TagInvalid."""
        return cls(text)

    def __str__(self) -> str:
        return self.text


def parse_reference(text: str) -> Tag | Digest:
    """A digest if it has a colon, else a tag. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else Tag(text)


def check_namespace(text: str) -> str:
    """`text` itself, if it can be the first component of a repository. Raises NameInvalid."""
    if len(text) > MAX_NAME or not re.fullmatch(_COMPONENT, text):
        raise NameInvalid(
            "a namespace is lower-case letters and digits, joined by single dots, dashes or underscores",
            name=text[:MAX_NAME],
        )
    return text


@dataclass(frozen=True, slots=True)
class ModelName:
    """`[host/][namespace/]model[:tag]` as a repository and a tag.

    A foreign host is the repository's first component, so a mirrored model never shadows a pushed one. A colon is no
    part of a component, hence `host:5000` is stored as `host__5000`.
    """

    repository: RepositoryName
    tag: Tag
    host: str | None  # None is the default host

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Folds host, namespace and model to lower case; the tag keeps its case. Raises NameInvalid."""
        if len(text) > 1024:
            raise NameInvalid("invalid model name", name=text[:MAX_NAME])
        path, tag = _cut_tag(text.strip())
        parts = path.partition("://")[2].split("/") if "://" in path else path.split("/")
        host = parts.pop(0) if len(parts) == 3 else DEFAULT_HOST
        namespace = parts.pop(0) if len(parts) == 2 else DEFAULT_NAMESPACE
        if len(parts) != 1 or not (
            _HOST.fullmatch(host) and _MODEL_NAMESPACE.fullmatch(namespace) and _MODEL.fullmatch(parts[0])
        ):
            raise NameInvalid("invalid model name", name=text[:MAX_NAME])
        host = host.lower()
        own = f"{namespace}/{parts[0]}".lower()
        if host == DEFAULT_HOST:
            return cls(RepositoryName(own), tag, None)
        return cls(RepositoryName(f"{_stored_host(host)}/{own}"), tag, host)

    @classmethod
    def of(cls, repository: RepositoryName, tag: Tag) -> ModelName | None:
        """The name that parses to this repository and tag; None if no model name can say them."""
        *hosts, rest = repository.text.split("/", repository.text.count("/") - 1)
        host = hosts[0] if len(hosts) == 1 else DEFAULT_HOST
        if (stored := _STORED_PORT.fullmatch(host)) is not None:
            host = f"{stored['name']}:{stored['port']}"
        try:
            name = cls.parse(f"{host}/{rest}:{tag}")
        except NameInvalid:
            return None
        return name if name.repository == repository else None

    @property
    def full(self) -> str:
        """With host, namespace and tag."""
        *_, namespace, model = self.repository.text.split("/")
        return f"{self.host or DEFAULT_HOST}/{namespace}/{model}:{self.tag}"

    @property
    def display(self) -> str:
        """The shortest form that means the same; the tag is always there."""
        return self.full.removeprefix(f"{DEFAULT_HOST}/").removeprefix(f"{DEFAULT_NAMESPACE}/")

    def __str__(self) -> str:
        return self.display


def _cut_tag(text: str) -> tuple[str, Tag]:
    """A colon after the last slash begins the tag; elsewhere it is a port's."""
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, Tag(DEFAULT_TAG)
    try:
        return path, Tag(tag)
    except TagInvalid:
        raise NameInvalid("invalid model name", name=text[:MAX_NAME]) from None


def _stored_host(host: str) -> str:
    """`host` as a path component; one that already looks like a stored port would be read back as another host."""
    if _STORED_PORT.fullmatch(host):
        raise NameInvalid("invalid host", host=host[:MAX_NAME])
    port = _HOST_PORT.fullmatch(host)
    return f"{port['name']}__{port['port']}" if port else host
