"""A crowd of clients of several nodes: they push, pull, delete, cancel and walk away, and remember what they did."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.soak_load import Tally
from benchmarks.soak_nodes_blobs import Content, Pusher
from benchmarks.soak_nodes_client import Answer, GaveUp, Spray, Unanswered
from benchmarks.soak_nodes_oracle import MANIFEST, Checks, Fate, Model

_REPOSITORIES: Final = 5
_SHARED: Final = 40  # blobs that pushes of different clients meet on
_KEPT_MOST: Final = 10  # models of a client at a time
_PUT_TRIES: Final = 5
_LEAST_TURNS: Final = 6


class Client:
    """One pusher: an access token of its own, models of its own, blobs and repositories that are everybody's."""

    def __init__(self, number: int, spray: Spray, shared: Sequence[Content]) -> None:
        self._number, self._spray, self._shared = number, spray, shared
        self._draw, self._tally = spray.draw, spray.tally
        self._pusher, self._checks = Pusher(spray), Checks(spray)
        self._turn = 0
        self.models: list[Model] = []

    @property
    def _present(self) -> list[Model]:
        return [model for model in self.models if model.fate is Fate.PRESENT]

    def run(self, deadline: float) -> None:
        """Until then, and until it has done a little, however slow the machine is."""
        actions: dict[Callable[[], None], int] = {
            self._push: 10, self._pull: 6, self._pull_ranges: 4, self._look_for_what_is_gone: 2, self._untag: 1,
            self._delete: 2, self._remove: 2, self._delete_blob: 2, self._cancel: 1, self._walk_away: 1,
        }  # fmt: skip
        while time.monotonic() < deadline or self._turn < _LEAST_TURNS:
            self._turn += 1
            [action] = self._draw.choices(list(actions), list(actions.values()))
            try:
                (self._delete if len(self._present) > _KEPT_MOST else action)()
            except Unanswered:
                self._tally.add("left undone: no answer")
            except GaveUp as error:
                self._tally.wonder(f"gave up: {error}")

    def _push(self) -> None:
        contents = self._draw.sample(self._shared, self._draw.randint(1, 3))
        if self._draw.random() < 0.5:
            contents.append(Content.make(f"{self._number} {self._turn} {self._draw.random()}"))
        model = Model(self._repository(), f"c{self._number}-{self._turn}", contents)
        self.models.append(model)
        others = [name for name in map(_repository, range(_REPOSITORIES)) if name != model.repository]
        for _ in range(_PUT_TRIES):
            for content in contents:
                self._pusher.bring(model.repository, content, others=others)
            answer = self._put(model)
            if answer.status == 201:
                model.was_put(answer)
                self._tally.add("manifest")
                return
            self._tally.add(f"manifest refused, its blobs pushed again: {answer.status}")
            if b"MANIFEST_BLOB_UNKNOWN" not in answer.body:
                self._tally.wonder(f"manifest: {answer.status} {answer.body[:300]!r}")
        raise GaveUp(f"manifest of {model.repository}:{model.tag}")

    def _put(self, model: Model) -> Answer:
        path, named = f"/v2/{model.repository}/manifests/{model.tag}", {"Content-Type": MANIFEST}
        answer = self._spray.ask("PUT", path, model.raw, named)
        model.is_haunted |= answer.is_haunted
        return answer

    def _pull(self) -> None:
        if model := self._some():
            self._checks.whole(model)
            self._tally.add("pull")

    def _pull_ranges(self) -> None:
        if model := self._some():
            self._checks.ranges(model.repository, self._draw.choice(model.contents))
            self._tally.add("pull of ranges")

    def _look_for_what_is_gone(self) -> None:
        if gone := [model for model in self.models if model.fate is Fate.GONE]:
            model = self._draw.choice(gone)
            self._checks.manifest(model, model.digest, model.fate)
            self._tally.add("look for what was deleted")

    def _untag(self) -> None:
        if (model := self._some()) and model.tag_fate is Fate.PRESENT:
            model.tag_fate = Fate.EITHER
            self._settle(self._spray.ask("DELETE", f"/v2/{model.repository}/manifests/{model.tag}"), "tag")
            model.was_untagged()

    def _delete(self) -> None:
        if model := self._some():
            model.fate = model.tag_fate = Fate.EITHER
            self._settle(self._spray.ask("DELETE", f"/v2/{model.repository}/manifests/{model.digest}"), "manifest")
            model.was_deleted()

    def _remove(self) -> None:
        """By its name, bytes and all, as `tonnage rm --now`."""
        if (model := self._some()) and model.tag_fate is Fate.PRESENT:
            model.fate = model.tag_fate = Fate.EITHER
            asked = json.dumps({"model": f"{model.repository}:{model.tag}", "now": True}).encode()
            self._settle(self._spray.ask("DELETE", "/api/delete", asked), "model")
            model.was_deleted()

    def _delete_blob(self) -> None:
        """Of no manifest, or of one: then it is refused."""
        path = f"/v2/{self._repository()}/blobs/{self._draw.choice(self._shared).digest}"
        self._settle(self._spray.ask("DELETE", path), "blob", refused=(405,))

    def _settle(self, answer: Answer, what: str, *, refused: tuple[int, ...] = ()) -> None:
        """404: it was carried out, and the answer got lost."""
        self._tally.add(f"delete of a {what}: {answer.status}")
        if answer.status not in (200, 202, 404, *refused):
            self._tally.wonder(f"delete of a {what}: {answer.status} {answer.body[:300]!r}")

    def _cancel(self) -> None:
        session = self._begun()
        self._spray.pause()
        answer = self._spray.ask("DELETE", session)
        self._tally.add(f"upload cancelled: {answer.status}")
        if answer.status not in (204, 404, 416):
            self._tally.wonder(f"cancel: {answer.status} {answer.body[:300]!r}")

    def _walk_away(self) -> None:
        self._begun()
        self._tally.add("upload abandoned")

    def _begun(self) -> str:
        content = Content.make(f"{self._number} {self._turn} left")
        return self._pusher.begin(self._repository(), content, self._draw.random())

    def _some(self) -> Model | None:
        return self._draw.choice(self._present) if self._present else None

    def _repository(self) -> str:
        return _repository(self._draw.randrange(_REPOSITORIES))


def _repository(number: int) -> str:
    return f"soak/model{number}"


def crowd(hosts: Sequence[str], tokens: Sequence[str], tally: Tally, *, seconds: float, seed: int) -> list[Model]:
    """One client a token, all at once; every model that any of them pushed, or tried to."""
    shared = [Content.make(f"{seed} shared {number}") for number in range(_SHARED)]
    clients = [
        Client(number, Spray(hosts, token, tally, random.Random(f"{seed} {number}")), shared)
        for number, token in enumerate(tokens)
    ]
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(client.run, deadline) for client in clients]:
            done.result()
    return [model for client in clients for model in client.models]
