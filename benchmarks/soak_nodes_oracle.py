"""What must be there and what must not: every model that a node took, by what its pusher was told since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.soak_nodes_blobs import Content
from benchmarks.soak_nodes_client import Answer, Spray

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_RANGES: Final = 3
_MOST_TAGS: Final = 10_000


class Fate(Enum):
    """EITHER: a request of which nobody knows may still come to be carried out."""

    PRESENT = "present"
    GONE = "gone"
    EITHER = "either"


@dataclass(slots=True)
class Model:
    """One manifest that only its pusher deletes. Its tag is its own, too; the blobs are everybody's."""

    repository: str
    tag: str
    contents: list[Content]
    raw: bytes = b""
    digest: str = ""
    fate: Fate = Fate.EITHER
    tag_fate: Fate = Fate.EITHER
    is_haunted: bool = False

    def __post_init__(self) -> None:
        described = [
            {"mediaType": "application/octet-stream", "digest": each.digest, "size": each.size}
            for each in self.contents
        ]
        config, *layers = described
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        self.raw = json.dumps(body | {"annotations": {"soak": f"{self.repository}:{self.tag}"}}).encode()
        self.digest = f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def was_put(self, answer: Answer) -> None:
        self.is_haunted |= answer.is_haunted
        self.fate = self.tag_fate = Fate.PRESENT

    def was_deleted(self) -> None:
        """A push that nobody answered may yet bring it back."""
        self.fate = self.tag_fate = Fate.EITHER if self.is_haunted else Fate.GONE

    def was_untagged(self) -> None:
        self.tag_fate = Fate.EITHER if self.is_haunted else Fate.GONE


@dataclass(frozen=True, slots=True)
class Checks:
    """Compares what a client gets with what it should get; whatever is missing or wrong is told to the tally."""

    spray: Spray

    def manifest(self, model: Model, reference: str, fate: Fate) -> bool:
        """Whether the manifest is there; wrong if that is not its fate, or if these are other bytes."""
        path = f"/v2/{model.repository}/manifests/{reference}"
        answer = self.spray.ask("GET", path)
        if answer.status not in (200, 404):
            self.spray.tally.wonder(f"GET {path}: {answer.status} {answer.body[:200]!r}")
        elif answer.status == 200 and answer.body != model.raw:
            self.spray.tally.wonder(f"OTHER BYTES: {path}")
        elif answer.status == 404 and fate is Fate.PRESENT:
            self.spray.tally.wonder(f"LOST: {path} {answer.body[:200]!r}")
        elif answer.status == 200 and fate is Fate.GONE:
            self.spray.tally.wonder(f"CAME BACK: {path}")
        return answer.status == 200

    def whole(self, model: Model) -> None:
        """By tag, by digest, and every blob: all of it, or nothing where it may be either."""
        self.manifest(model, model.tag, model.tag_fate)
        if self.manifest(model, model.digest, model.fate):
            for content in model.contents:
                self.blob(model.repository, content)

    def tags(self, repository: str, models: Sequence[Model]) -> None:
        """Every tag of these models, all of this repository, that is there is listed, and none that is gone."""
        answer = self.spray.ask("GET", f"/v2/{repository}/tags/list?n={_MOST_TAGS}")
        listed = set(json.loads(answer.body)["tags"]) if answer.status == 200 else set()
        for model in models:
            if model.tag_fate is (Fate.GONE if model.tag in listed else Fate.PRESENT):
                how = "listed" if model.tag in listed else "not listed"
                self.spray.tally.wonder(f"{how}: {repository}:{model.tag}, {model.tag_fate.value}")

    def blob(self, repository: str, content: Content) -> None:
        path = f"/v2/{repository}/blobs/{content.digest}"
        answer = self.spray.ask("GET", path)
        if answer.status != 200:
            self.spray.tally.wonder(f"LOST: {path}: {answer.status} {answer.body[:200]!r}")
        elif f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != content.digest:
            self.spray.tally.wonder(f"OTHER BYTES: {path}: {len(answer.body)} of {content.size}")

    def ranges(self, repository: str, content: Content) -> None:
        """Some ranges, each from a node by chance."""
        path = f"/v2/{repository}/blobs/{content.digest}"
        for first, last in _ranges(self.spray, content.size):
            answer = self.spray.ask("GET", path, headers={"Range": f"bytes={first}-{last}"})
            if answer.status != 206:
                self.spray.tally.wonder(f"LOST: {path} {first}-{last}: {answer.status} {answer.body[:200]!r}")
            elif answer.body != content.data[first : last + 1]:
                self.spray.tally.wonder(f"OTHER BYTES: {path} {first}-{last}")


def _ranges(spray: Spray, size: int) -> Iterator[tuple[int, int]]:
    for _ in range(_RANGES):
        first = spray.draw.randrange(size)
        yield first, spray.draw.randint(first, min(size - 1, first + 2**21))
