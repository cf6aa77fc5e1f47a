"""From a stored manifest to what can run: weights, template, system text, parameters, and what the model can do.

Everything here is read from content-addressed bytes, so it is remembered by the manifest's digest; which digest a
tag has is asked of the database at every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from runtime import capabilities, foreign
from runtime.artifact import MAX_CONFIG, Files, find_files, find_layers, read_config
from runtime.errors import ModelUnusable
from runtime.gguf import Header, parameter_text
from runtime.layers import Layer, Layers
from runtime.recent import Recent
from runtime.templates.chat import ChatTemplate
from runtime.templates.choose import TemplateChoice, choose
from runtime.untrusted_json import parse_json
from storage.digest import Digest
from storage.reference import ModelName, RepositoryName
from storage.repositories import StoredManifest
from storage.store import Store

JSON = dict[str, Any]
MAX_TEXT_LAYER = MAX_CONFIG
_LISTED_TEXT, _LISTED_ITEMS, _LONGEST_PARENT = 128, 16, 512
_recent: Recent[tuple[str, str, bool | None], Model] = Recent(64)  # a header may keep some MiB


@dataclass(frozen=True)
class Model:
    """A model as its manifest describes it. `template`: the Go template layer's text, None without one.

    digest: of the manifest that the tag names, be it an index; layers: of the manifest that was chosen from it.
    files: weights, projectors and adapters. config: in Ollama's words, whoever wrote it.
    jinja: a chat template beside the weights, which stands before the one in them.
    """

    name: ModelName
    digest: Digest
    layers: Layers
    files: Files
    config: JSON
    template: str | None
    system: str
    params: JSON
    messages: tuple[JSON, ...]
    licenses: tuple[str, ...]
    jinja: str | None = None
    go_templates: bool | None = None  # the operator's word on them

    @property
    def weights(self) -> Layer:
        """The file of the weights; of several the first, whose header speaks for all."""
        return self.files.weights[0]

    @property
    def projectors(self) -> tuple[Layer, ...]:
        return self.files.projectors

    @property
    def adapters(self) -> tuple[Layer, ...]:
        return self.files.adapters

    @property
    def header(self) -> Header:
        return self.files.header

    @property
    def chat_template(self) -> str | None:
        """Its Jinja template."""
        return self.jinja or self.header.chat_template

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
        source = self.chat_template
        jinja = None
        if source:
            for_tools = None if self.jinja else self.header.text("tokenizer.chat_template.tool_use")
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
    config = short(config)
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
    return {"parent_model": parent} | short(details)


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
    repository, layers = name.repository, find_layers(store, name.repository, stored.raw)
    document = read_config(store, repository, layers)
    if document.get("remote_host"):
        raise ModelUnusable("this model has no weights of its own: it runs on another server")
    config = foreign.config_words(layers, document)
    files = find_files(store, repository, layers)
    texts = {kind: [read_text(store, repository, layer) for layer in layers.of(kind)[-1:]] for kind in _TEXTS}
    template = texts["template"] or texts["prompt"]
    jinja = foreign.template_layer(layers)
    found = (_license(store, repository, layer) for layer in foreign.license_layers(layers))
    licenses = [text for text in found if text is not None]
    return Model(
        name=name,
        digest=stored.digest,
        layers=layers,
        files=files,
        config=config,
        template=template[0] if template else None,
        system=texts["system"][0] if texts["system"] else "",
        params=_object("params", texts["params"]),
        messages=_messages(texts["messages"]),
        licenses=tuple(licenses or foreign.licenses(layers, document)),
        jinja=read_text(store, repository, jinja) if jinja is not None else None,
    )


def _license(store: Store, repository: RepositoryName, layer: Layer) -> str | None:
    """A licence's text; None for a file that is only named like one."""
    try:
        return read_text(store, repository, layer)
    except ModelUnusable:
        if layer.is_ollama("license"):
            raise
        return None


_TEXTS = ("template", "prompt", "system", "params", "messages")


def short(config: JSON) -> JSON:
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
