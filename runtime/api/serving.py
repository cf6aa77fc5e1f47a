"""What every inference handler does first: read the body, find the model, check what it can do, lease a runner."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flask import current_app, request

from auth.access import Right, current_gate
from runtime.api.disconnect import watcher
from runtime.api.durations import parse_keep_alive, utc_now
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.requests import Body, check_base64, read_body
from runtime.dialogue import Dialogue, Prompt, Reading
from runtime.errors import RequestCancelled
from runtime.messages import GenerateRequest, ModelSpec
from runtime.model import Model, load_model
from runtime.options import SampleOptions, merge_options
from runtime.prompts import IMAGE_TOKENS, fit
from runtime.settings import RuntimeSettings
from runtime.structured.schema import Constraint
from runtime.supervisor.client import Supervisor
from runtime.supervisor.lease import POLL_S, Lease
from runtime.vocabulary import vocabulary_spec
from runtime.weights import identity, model_spec
from storage.errors import BlobUnknown, CopiesInUse, KeyUnknown, ManifestUnknown, NameInvalid, NameUnknown
from storage.store import Store

JSON = dict[str, Any]
TRY_PULLING = 'model "{}" not found, try pulling it first'
NOT_FOUND = "model '{}' not found"
_ROOM_S = 15.0  # for models that were asked a moment ago to be left alone, so that others' files have room


def store() -> Store:
    found = current_app.extensions["tonnage.store"]
    assert isinstance(found, Store)
    return found


def supervisor() -> Supervisor:
    found = current_app.extensions["tonnage.supervisor"]
    assert isinstance(found, Supervisor)
    return found


def settings() -> RuntimeSettings:
    found = current_app.extensions["tonnage.runtime"]
    assert isinstance(found, RuntimeSettings)
    return found


def caller() -> str:
    """Whose request it is: the one with whom its prompts are shared, and whose turn in a queue it takes."""
    return current_gate().identify().principal


@dataclass(frozen=True)
class Call:
    """One request for inference. `model_name`: exactly as the client wrote it, which is how replies repeat it."""

    body: Body
    model_name: str
    keep_alive_s: float | None
    is_cancelled: Callable[[], bool]
    started_ns: int = field(default_factory=time.monotonic_ns)

    @classmethod
    def from_request(cls) -> Call:
        started_ns = time.monotonic_ns()  # before the body: a slow upload is part of the total
        return cls.of(read_body(settings().max_body_bytes), started_ns)

    @classmethod
    def of(cls, body: Body, started_ns: int) -> Call:
        """A call that says what `body` says, in the words of /api, wherever that came from."""
        keep_alive_s = parse_keep_alive(body.raw("keep_alive"))
        return cls(body, body.text("model"), keep_alive_s, watcher(request.environ), started_ns)

    def check_answer(self) -> None:
        """What no model could make right is refused before the model is looked for. Raises Refused."""
        self.body.think()
        self.body.top_logprobs()

    def find_model(self, missing: str) -> Model:
        """The stored model. `missing`: the route's words for one that is not there. Raises Refused, AccessDenied."""
        if not self.model_name:
            raise Refused(404, NOT_FOUND.format(""))
        name = parse_name(self.model_name)
        current_gate().check(Right.INFER, (name.repository, "infer"))  # first: a refusal tells nothing of what is here
        try:
            return load_model(store(), name, go_templates=settings().go_templates)
        except (BlobUnknown, KeyUnknown):
            raise Refused(404, TRY_PULLING.format(self.model_name)) from None
        except (NameUnknown, ManifestUnknown, NameInvalid):
            raise Refused(404, missing.format(self.model_name)) from None

    def options(self, model: Model) -> JSON:
        """The request's options over the model's own. Raises OptionInvalid."""
        given = self.body.mapping("options") or {}
        return model.params | {key: value for key, value in given.items() if value is not None}

    def lease(self, model: Model) -> tuple[Lease, SampleOptions]:
        """A loaded runner, and what its sampler is told. The caller closes the lease."""
        load, sample = merge_options(self.options(model))
        return self._leased(partial(model_spec, store(), model, load, go_on=self._go_on)), sample

    def lease_vocabulary(self, model: Model) -> Lease:
        """A runner that knows the model's words: the one that has it loaded, or one without weights. The caller closes
        it. Raises Refused.
        """
        return self._leased(partial(vocabulary_spec, store(), model, go_on=self._go_on))

    def _leased(self, describe: Callable[[], AbstractContextManager[ModelSpec]]) -> Lease:
        """A runner of what `describe` says, whose files are held until it has them."""
        with ExitStack() as held:
            try:
                spec = self._described(describe, held)
            except (BlobUnknown, KeyUnknown):
                raise Refused(404, TRY_PULLING.format(self.model_name)) from None
            return supervisor().lease(spec, self.keep_alive_s, caller=caller(), is_cancelled=self.is_cancelled)

    def _described(self, describe: Callable[[], AbstractContextManager[ModelSpec]], held: ExitStack) -> ModelSpec:
        """The spec, once there is room for its files on this node: models that nobody asks give theirs up."""
        deadline = time.monotonic() + _ROOM_S
        while True:
            since = time.monotonic()
            try:
                return held.enter_context(describe())
            except CopiesInUse as error:
                wait_s = supervisor().make_room(error.lacking, since)
                if wait_s is None or time.monotonic() + wait_s > deadline:
                    raise
            self._wait(wait_s)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._go_on()
            time.sleep(min(left, POLL_S))

    def _go_on(self) -> None:
        """Raises RequestCancelled once the client has left."""
        if self.is_cancelled():
            raise RequestCancelled("request canceled")

    def load_only(self, model: Model) -> str:
        """Load the model, or unload it for a keep-alive of 0. Returns the `done_reason` to report."""
        if self.keep_alive_s == 0:
            supervisor().unload(identity(model))
            return "unload"
        lease, _ = self.lease(model)
        lease.close()
        return "load"

    def think(self, model: Model) -> bool | str | None:
        """Whether, and how hard, the model is to think; a model that can does by default. Raises Refused."""
        wanted = self.body.think()
        can_think = "thinking" in model.capabilities
        if wanted and not can_think:
            raise Refused(400, f'"{self.model_name}" does not support thinking')
        return True if wanted is None and can_think else wanted

    def require(self, model: Model, capabilities: Sequence[str], verb: str) -> None:
        """Raises Refused unless `model` can complete (in the words of `verb`) and has all of `capabilities`."""
        if "completion" not in model.capabilities:
            raise Refused(400, f'"{self.model_name}" does not support {verb}')
        lacking = [
            f"{model.name.full} does not support {each}" for each in capabilities if each not in model.capabilities
        ]
        if lacking:
            raise Refused(400, "\n".join(lacking))

    def reply(self, **fields: Any) -> JSON:
        """The keys that every object of an answer begins with, and `fields`."""
        return {"model": self.model_name, "created_at": utc_now(), **fields}

    def prompt(self, lease: Lease, dialogue: Dialogue, messages: list[JSON]) -> Prompt:
        """The rendered prompt, of as many of the newest messages as fit the context unless `truncate` is false."""
        messages = dialogue.conversation(messages)
        if not self.body.flag("truncate", True):
            return dialogue.final(messages, dialogue.render(messages), is_cut=False)
        image_tokens = IMAGE_TOKENS if dialogue.model.projectors else 0
        count = partial(lease.count, is_cancelled=self.is_cancelled)
        fitted = fit(messages, dialogue.render, count, lease.context_length, image_tokens=image_tokens)
        return dialogue.final(fitted.messages, fitted.prompt, is_cut=bool(fitted.dropped) or fitted.is_over)

    def measured(self, lease: Lease, prompt: Prompt) -> Prompt:
        """A prompt that has no messages to leave out, and whether the runner will have to cut it."""
        limit = lease.context_length
        is_long = self.body.flag("truncate", True) and len(prompt.text.encode()) >= limit
        return replace(prompt, is_cut=is_long and lease.count(prompt.text, is_cancelled=self.is_cancelled) > limit)

    def generation(
        self, model: Model, prompt: Prompt, options: SampleOptions, reading: Reading, constraint: Constraint | None
    ) -> GenerateRequest:
        """What the runner is asked, apart from what /api/generate alone knows."""
        return GenerateRequest(
            prompt=prompt.text,
            options=options,
            shift=self.body.flag("shift", default=model.family != "deepseek2"),
            truncate=self.body.flag("truncate", True),
            top_logprobs=self.body.top_logprobs(),
            format=constraint.to_json() if constraint is not None else None,
            thought=reading.thought if constraint is not None else None,
            special=reading.special,
            images=prompt.images,
            caller=caller(),
        )

    def check_images(self, model: Model, images: Sequence[str]) -> None:
        """Raises Refused for images that are none, or that the model cannot see."""
        for image in images:
            check_base64(image)
        if images and "vision" not in model.capabilities:
            raise Refused(400, f'"{self.model_name}" does not support images')

    def constraint(self, dialogue: Dialogue) -> Constraint | None:
        """What the answer is held to. Raises Refused, FormatInvalid."""
        wanted = self.body.raw("format")
        if wanted is not None and wanted not in ("", "json") and not isinstance(wanted, dict):
            raise Refused(500, f'invalid format: {_quoted(wanted)}; expected "json" or a valid JSON Schema object')
        return dialogue.constraint(wanted)


def _quoted(value: object) -> str:
    return json.dumps(json.dumps(value, ensure_ascii=False, separators=(",", ":")), ensure_ascii=False)[:1000]
