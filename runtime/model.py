"""From a stored manifest to what can run: weights, template, system text, parameters, and what the model can do.

Everything here is read from content-addressed bytes, so it is remembered by the manifest's digest; which digest a
tag has is asked of the database at every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from runtime import capabilities
from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.gguf import Header, parameter_text, read_facts, read_header
from runtime.layers import MAX_PROBED, Layer, Layers, parse_layers
from runtime.recent import Recent
from runtime.templates.chat import ChatTemplate
from runtime.templates.choose import TemplateChoice, choose
from runtime.untrusted_json import parse_json
from storage.digest import Digest
from storage.reference import ModelName, RepositoryName
from storage.repositories import StoredManifest
from storage.store import Store

JSON = dict[str, Any]
MAX_TEXT_LAYER = 1024**2
_MAX_LICENSES = 32
_LISTED_TEXT, _LISTED_ITEMS, _LONGEST_PARENT = 128, 16, 512
_recent: Recent[tuple[str, str, bool | None], Model] = Recent(64)  # a header may keep some MiB
_summaries: Recent[tuple[str, str], Summary | None] = Recent(20_000)  # about 1 kB each


@dataclass(frozen=True, slots=True)
class Summary:
    """A model in a list. `size`: bytes of all layers, as declared."""

    details: JSON
    capabilities: list[str]
    size: int


@dataclass(frozen=True)
class Model:
    """A model as its manifest describes it. `template`: the Go template layer's text, None without one."""

    name: ModelName
    digest: Digest  # of the manifest
    layers: Layers
    weights: Layer
    projectors: tuple[Layer, ...]
    adapters: tuple[Layer, ...]
    header: Header
    config: JSON
    template: str | None
    system: str
    params: JSON
    messages: tuple[JSON, ...]
    licenses: tuple[str, ...]
    go_templates: bool | None = None  # the operator's word on them

    @cached_property
    def capabilities(self) -> list[str]:
        """In order of first mention; /api/show lists them all."""
        return capabilities.merged(
            strings(self.config.get("capabilities")),
            capabilities.of_weights(self.header),
            ["vision"] if self.projectors else [],
            self.templates.capabilities,
            capabilities.of_parser(str(self.config.get("parser") or ""), self.family),
        )

    @property
    def family(self) -> str:
        return str(self.config.get("model_family") or self.header.architecture)

    @cached_property
    def templates(self) -> TemplateChoice:
        """Its templates, and which one is in force."""
        source = self.header.chat_template
        jinja = None
        if source:
            for_tools = self.header.text("tokenizer.chat_template.tool_use")
            jinja = ChatTemplate(source, self.header.bos_token, self.header.eos_token, for_tools)
        return choose(
            self.template,
            jinja,
            renderer=str(self.config.get("renderer") or ""),
            parser=str(self.config.get("parser") or ""),
            family=self.family,
            go_templates=self.go_templates,
        )

    @cached_property
    def details(self) -> JSON:
        """As /api/tags shows it; other places leave the lengths out."""
        return model_details(self.layers, self.config, self.header)


def load_model(store: Store, name: ModelName, *, go_templates: bool | None = None) -> Model:
    """The model that `name` has now. Raises NameUnknown, ManifestUnknown, BlobUnknown, ModelUnusable, GGUFInvalid."""
    tag = store.repositories.resolve_tag(name.repository, name.tag)
    stored = store.repositories.get_manifest(name.repository, tag)
    named = ModelName(name.repository, tag, name.host)
    key = (named.full, str(stored.digest), go_templates)
    return _recent.get(key, lambda: replace(_read_model(store, named, stored), go_templates=go_templates))


def model_details(layers: Layers, config: JSON, header: Header) -> JSON:
    """`details` of /api/tags: the config's word first, the weights' own where it is silent. All of it is short."""
    config = _short(config)
    family = str(config.get("model_family") or header.architecture)
    weights = layers.of("model")
    details: JSON = {
        "format": str(config.get("model_format") or "gguf"),
        "family": family,
        "families": strings(config.get("model_families")) or [family],
        "parameter_size": str(config.get("model_type") or parameter_text(header.parameter_count)),
        "quantization_level": _level(config, header),
    }
    for key in ("context_length", "embedding_length"):
        length = config.get(key) or getattr(header, key)
        if isinstance(length, int) and length > 0:
            details[key] = length
    parent = weights[-1].parent[:_LONGEST_PARENT] if weights else ""
    return {"parent_model": parent} | _short(details)


def summary(store: Store, repository: RepositoryName, digest: Digest) -> Summary | None:
    """What a list of models shows of a manifest; None when it is no model. Reads it and a few kilobytes more, once."""

    def compute() -> Summary | None:
        try:
            raw = store.repositories.get_manifest(repository, digest).raw
            return _summarise(store, repository, parse_layers(raw))
        except (ModelUnusable, GGUFInvalid):
            return None

    return _summaries.get((str(repository), str(digest)), compute)


def _summarise(store: Store, repository: RepositoryName, layers: Layers) -> Summary:
    config = _short(_read_config(store, repository, layers))
    weights, projectors, _ = _choose(store, repository, layers)
    # the parameter count alone needs the whole header, and most configs state it
    header = _header(store, repository, weights, is_whole=not config.get("model_type"))
    found = capabilities.merged(
        strings(config.get("capabilities")),
        capabilities.of_weights(header),
        capabilities.of_parser(str(config.get("parser") or ""), str(config.get("model_family"))),
        ["vision"] if projectors else [],
    )
    return Summary(model_details(layers, config, header), found, layers.size)


def read_text(store: Store, repository: RepositoryName, layer: Layer) -> str:
    """A small layer as text. Raises ModelUnusable when it is not small or not UTF-8."""
    if layer.size > MAX_TEXT_LAYER:
        raise ModelUnusable(f"layer {layer.media_type} is larger than {MAX_TEXT_LAYER} bytes")
    with store.blobs.open(repository, layer.digest) as blob:
        raw = blob.read(MAX_TEXT_LAYER + 1)
    try:
        return raw[:MAX_TEXT_LAYER].decode()
    except UnicodeDecodeError:
        raise ModelUnusable(f"layer {layer.media_type} is not UTF-8 text") from None


def strings(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _read_model(store: Store, name: ModelName, stored: StoredManifest) -> Model:
    repository, layers = name.repository, parse_layers(stored.raw)
    config = _read_config(store, repository, layers)
    if config.get("remote_host"):
        raise ModelUnusable("this model has no weights of its own: it runs on another server")
    weights, projectors, adapters = _choose(store, repository, layers)
    texts = {kind: [read_text(store, repository, layer) for layer in layers.of(kind)[-1:]] for kind in _TEXTS}
    template = texts["template"] or texts["prompt"]
    licenses = [read_text(store, repository, layer) for layer in layers.of("license")[:_MAX_LICENSES]]
    return Model(
        name=name,
        digest=stored.digest,
        layers=layers,
        weights=weights,
        projectors=projectors,
        adapters=adapters,
        header=_header(store, repository, weights),
        config=config,
        template=template[0] if template else None,
        system=texts["system"][0] if texts["system"] else "",
        params=_object("params", texts["params"]),
        messages=_messages(texts["messages"]),
        licenses=tuple(licenses),
    )


_TEXTS = ("template", "prompt", "system", "params", "messages")


def _choose(
    store: Store, repository: RepositoryName, layers: Layers
) -> tuple[Layer, tuple[Layer, ...], tuple[Layer, ...]]:
    """Weights, projectors and adapters. Files of other tools carry no labels for these: their headers tell."""

    def probe(layer: Layer) -> bytes:
        with store.blobs.open(repository, layer.digest) as blob:
            return blob.read(4)

    found = layers.weights(probe)
    projectors, adapters = layers.of("projector"), layers.of("adapter")
    if len(found) == 1:
        return found[0], tuple(projectors), tuple(adapters)
    by_role: dict[str, list[Layer]] = {"model": [], "projector": projectors, "adapter": adapters}
    for layer in found[:MAX_PROBED]:
        by_role[_role(_header(store, repository, layer, is_whole=False))].append(layer)
    if not by_role["model"]:
        raise ModelUnusable("the manifest names no GGUF weights")
    if len(by_role["model"]) > 1:
        raise ModelUnusable("the weights are in several files: merge them before pushing")
    return by_role["model"][0], tuple(projectors), tuple(adapters)


def _role(header: Header) -> str:
    kind = header.text("general.type")
    if kind in {"mmproj", "projector"} or header.architecture == "clip":
        return "projector"
    return "adapter" if kind == "adapter" else "model"


def _header(store: Store, repository: RepositoryName, layer: Layer, *, is_whole: bool = True) -> Header:
    size = store.blobs.stat(repository, layer.digest).size
    with store.blobs.open(repository, layer.digest) as blob:
        return read_header(blob, size) if is_whole else read_facts(blob, size)


def _read_config(store: Store, repository: RepositoryName, layers: Layers) -> JSON:
    """The config blob; empty when there is none, or when another tool wrote something else there."""
    if layers.config is None or layers.config.size > MAX_TEXT_LAYER:
        return {}
    try:
        return _object("config", [read_text(store, repository, layers.config)])
    except ModelUnusable:
        return {}


def _short(config: JSON) -> JSON:
    """A config as a list or a lease can afford it: its texts are a pusher's; thousands are kept, and sent around."""
    kept: JSON = {}
    for key, value in config.items():
        if isinstance(value, str):
            kept[key] = value[:_LISTED_TEXT]
        elif isinstance(value, list):
            kept[key] = [text[:_LISTED_TEXT] for text in strings(value)[:_LISTED_ITEMS]]
        elif isinstance(value, int | float):
            kept[key] = value
    return kept


def _object(kind: str, texts: Sequence[str]) -> JSON:
    value = _json(kind, texts[0]) if texts else {}
    if not isinstance(value, dict):
        raise ModelUnusable(f"the {kind} layer is not a JSON object")
    return value


def _messages(texts: Sequence[str]) -> tuple[JSON, ...]:
    value = _json("messages", texts[0]) if texts else []
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise ModelUnusable("the messages layer is not a list of messages")
    return tuple({key: str(message.get(key) or "") for key in ("role", "content")} for message in value)


def _json(kind: str, text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        raise ModelUnusable(f"the {kind} layer is not JSON") from None


def _level(config: JSON, header: Header) -> str:
    stated = config.get("file_type")
    return str(stated) if stated and stated != "unknown" else header.file_type
