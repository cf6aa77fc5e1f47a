"""A recipe carried out, step by step, each with its line; the manifest comes last, and before it nothing is visible.

Source: the Ollama API, "POST /api/create": its progress status lines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final

from registry.models.create import gguf_files
from registry.models.create.base import Base, read_base
from registry.models.create.config import config_json
from registry.models.create.gguf_files import File, Weights
from registry.models.create.go_json import go_json, in_order
from registry.models.create.parts import CONFIG, Part, manifest_json, without, written_part
from registry.models.create.quantizing import parsed_level, quantized
from registry.models.create.recipe import Files, Recipe
from registry.models.names import tag_moved
from registry.models.staging import Staging
from runtime.api.errors import Refused
from runtime.errors import RequestCancelled
from runtime.gguf import Header
from runtime.layers import OLLAMA
from runtime.templates.errors import TemplateInvalid
from runtime.templates.go.template import load
from storage.errors import BlobUnknown, ManifestUnknown, NameUnknown
from storage.manifest import DOCKER_MANIFEST
from storage.mounts import mount_all
from storage.reference import ModelName

JSON = dict[str, Any]
Lines = Generator[JSON, None, None]
Pull = Callable[[ModelName], Iterator[JSON]]

_MOST_LICENSES: Final = 100  # each is a layer, and a blob of its own
_ONE_ADAPTER: Final = "only one adapter is currently supported"


class Build:
    """One create under way. pull: brings a model here that is missing. is_gone: whether the client has left."""

    def __init__(self, recipe: Recipe, staging: Staging, *, pull: Pull, is_gone: Callable[[], bool]) -> None:
        self._recipe, self._staging = recipe, staging
        self._pull, self._is_gone = pull, is_gone

    def lines(self) -> Lines:
        """Every status line, `success` being the last.

        Raises Refused, RequestCancelled, and what reading and storing raise. Whoever leaves it early ends the work.
        """
        recipe = self._recipe
        yield from ({"status": warning} for warning in recipe.warnings)
        base = (yield from self._base(recipe.base)) if recipe.base is not None else None
        if base is not None and base.chat_template and recipe.template.strip() == base.chat_template.strip():
            recipe = self._recipe = replace(recipe, template="")  # as a Modelfile of it shows it; no Go template
        files = yield from self._read(recipe.files)
        levels = self._checked()
        weights, others = self._main_layers(base, files)
        others += yield from self._adapters(others)
        others += yield from self._draft(levels[1])
        inherited = base.config if base is not None else {}
        if levels[0]:
            before = weights
            weights = yield from quantized(self._staging, weights, levels[0], self._is_gone)
            inherited = inherited if weights is before else {**inherited, "file_type": ""}
        layers = self._with_texts([*weights.parts, *others], base.params if base is not None else {})
        projectors = [file.header for file in files if file.role == "projector"]
        yield from self._write(layers, self._config(inherited, weights.header, projectors))

    def _go_on(self) -> None:
        if self._is_gone():
            raise RequestCancelled("request canceled")

    def _checked(self) -> list[str]:
        """The levels to quantise to, of the weights and of the draft model; "" leaves them as they are.

        What costs nothing to find out is found out before anything that costs much. Raises Refused.
        """
        recipe = self._recipe
        if len(recipe.licenses) > _MOST_LICENSES:
            raise Refused(400, f"a request adds at most {_MOST_LICENSES} licenses")
        try:
            load(recipe.template)
        except TemplateInvalid as error:
            raise Refused(400, str(error)) from None
        config_json(recipe, {}, _NO_HEADER, ())
        return [parsed_level(each) if each else "" for each in (recipe.quantize, recipe.draft_quantize)]

    def _base(self, name: ModelName) -> Generator[JSON, None, Base]:
        """The stored model to begin with, brought here first where it is missing."""
        self._go_on()
        try:
            return read_base(self._staging, name, self._go_on)
        except (NameUnknown, ManifestUnknown):  # not where a blob is missing: a pull would take the name's place
            yield from self._pull(name)
        except BlobUnknown:
            raise Refused(404, f"model '{name.display}' not found") from None
        try:
            return read_base(self._staging, name, self._go_on)
        except (NameUnknown, ManifestUnknown, BlobUnknown):
            raise Refused(404, f"model '{name.display}' not found") from None

    def _read(self, files: Files) -> Generator[JSON, None, list[File]]:
        self._go_on()
        return (yield from gguf_files.read_files(self._staging, files)) if files else []

    def _main_layers(self, base: Base | None, files: Sequence[File]) -> tuple[Weights, list[Part]]:
        """The weights, and what comes with them. Raises Refused unless there is exactly one set of weights."""
        added = gguf_files.weights_of(self._staging, files)
        if base is not None and added is not None:
            raise Refused(400, "a model has one set of weights: name a stored model or a file, not both")
        weights = base.weights if base is not None else added
        if weights is None:
            raise Refused(400, "the files hold no weights of a model")
        others = list(base.others) if base is not None else []
        for role in ("projector", "adapter"):
            others += gguf_files.of_role(self._staging, files, role)
        return weights, others

    def _adapters(self, others: Sequence[Part]) -> Generator[JSON, None, list[Part]]:
        """The LoRA adapter of the request. Raises Refused."""
        if len(self._recipe.adapters) > 1:
            raise Refused(400, _ONE_ADAPTER)
        files = yield from self._read(self._recipe.adapters)
        if any(file.role != "adapter" for file in files):
            raise Refused(400, "the file given as an adapter is not a LoRA adapter")
        found = gguf_files.of_role(self._staging, files, "adapter")
        if len(found) + sum(part.is_a("adapter") for part in others) > 1:
            raise Refused(400, _ONE_ADAPTER)
        return found

    def _draft(self, level: str) -> Generator[JSON, None, list[Part]]:
        """The small model that is to guess ahead. Raises Refused."""
        files = yield from self._read(self._recipe.draft)
        if not files:
            return []
        if len(files) > 1 or files[0].role != "model":
            raise Refused(400, "a draft model is one GGUF file of weights")
        draft = Weights((files[0].part(self._staging, "draft"),), files[0].header)
        if level:
            draft = yield from quantized(self._staging, draft, level, self._is_gone)
        return list(draft.parts)

    def _with_texts(self, layers: list[Part], inherited_params: JSON) -> list[Part]:
        """What the request says in place of the layers of its kind, in the reference's order; licences are added."""
        recipe = self._recipe
        if recipe.template:
            layers = [*without(layers, "template", "prompt"), self._written("template", recipe.template)]
        if recipe.system:
            layers = [*without(layers, "system"), self._written("system", recipe.system)]
        for text in recipe.licenses:
            layer = self._written("license", text)
            layers += [] if any(each.digest == layer.digest and each.is_a("license") for each in layers) else [layer]
        if recipe.parameters:
            params = in_order(inherited_params | recipe.parameters)
            layers = [*without(layers, "params"), self._written("params", go_json(params) + "\n")]
        if recipe.messages:
            messages = go_json(recipe.messages) + "\n"
            layers = [*without(layers, "messages"), self._written("messages", messages)]
        return layers

    def _written(self, kind: str, text: str) -> Part:
        data = text.encode("utf-8", "replace")
        return written_part(self._staging, self._recipe.target.repository, OLLAMA + kind, data)

    def _config(self, inherited: JSON, weights: Header, projectors: Sequence[Header]) -> Part:
        data = config_json(self._recipe, inherited, weights, projectors)
        return written_part(self._staging, self._recipe.target.repository, CONFIG, data)

    def _write(self, layers: Sequence[Part], config_part: Part) -> Lines:
        """Make the model visible, all of it at once."""
        parts = [*layers, config_part]
        yield from ({"status": part.status} for part in parts)
        yield {"status": "writing manifest"}
        self._go_on()
        target, staging = self._recipe.target, self._staging
        self._bring(parts, target)
        stored = staging.store.repositories.put_manifest(
            target.repository,
            target.tag,
            manifest_json(config_part, layers),
            DOCKER_MANIFEST,
            principal=staging.principal,
        )
        tag_moved(target, stored)
        yield {"status": "success"}

    def _bring(self, parts: Iterable[Part], target: ModelName) -> None:
        """Link what the layers are made of into the model's repository; no byte is copied."""
        for home, group in groupby(sorted(parts, key=_home), key=lambda part: part.home):
            mount_all(
                self._staging.store.database,
                [part.digest for part in group],
                source=home,
                into=target.repository,
                principal=self._staging.principal,
            )


_NO_HEADER: Final = Header(version=3, metadata={}, tensors=(), data_offset=0)


def _home(part: Part) -> str:
    return part.home.text
