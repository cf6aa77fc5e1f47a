"""BERT, from its description: WordPiece and the forward pass in numpy, and a file of the weights for llama.cpp.

What the runtime computes is compared with it. Tensors have the names that the original checkpoints give them.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
    "classifier.dense.weight": "cls.weight",
    "classifier.dense.bias": "cls.bias",
    "classifier.out_proj.weight": "cls.output.weight",
    "classifier.out_proj.bias": "cls.output.bias",
}
_INNER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


@dataclass(frozen=True)
class Bert:
    """vocabulary: WordPiece, uncased, continuations with ##."""

    vocabulary: list[str]
    tensors: dict[str, Array]
    heads: int

    @property
    def layers(self) -> int:
        return sum(name.endswith("attention.self.query.weight") for name in self.tensors)

    def tokens(self, text: str, limit: int | None = None) -> list[int]:
        """[CLS] text [SEP], the text's tail cut to `limit` tokens in all."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        inner = pieces if limit is None else pieces[: limit - 2]
        return [self._ids[token] for token in ("[CLS]", *inner, "[SEP]")]

    def vector(self, text: str, limit: int | None = None) -> Array:
        """The mean of all tokens' vectors, at unit length."""
        mean = self.hidden(self.tokens(text, limit)).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def score(self, query: str, document: str) -> float:
        """What the classifier makes of [CLS] query [SEP] document [SEP], both taken as the first kind of sentence."""
        pair = self.hidden(self.tokens(query) + self.tokens(document)[1:])
        dense = np.tanh(self._linear("classifier.dense", pair[0]))
        return 1 / (1 + math.exp(-float(self._linear("classifier.out_proj", dense)[0])))

    def hidden(self, ids: list[int]) -> Array:
        """(tokens, width) after the last layer."""
        embedded = (
            self.tensors["embeddings.word_embeddings.weight"][ids]
            + self.tensors["embeddings.position_embeddings.weight"][: len(ids)]
            + self.tensors["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._norm("embeddings.LayerNorm", embedded)
        for number in range(self.layers):
            states = self._layer(f"encoder.layer.{number}.", states)
        return states

    def write(self, path: Path, *, pooling: gguf.PoolingType = gguf.PoolingType.MEAN, name: str = "bert") -> Path:
        """A GGUF of it; matrices are halved to 16 bits, as models of this kind are usually published."""
        writer = gguf.GGUFWriter(path, "bert")
        positions, width = self.tensors["embeddings.position_embeddings.weight"].shape
        writer.add_name(name)
        writer.add_context_length(positions)
        writer.add_embedding_length(width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(len(self.tensors["encoder.layer.0.intermediate.dense.bias"]))
        writer.add_head_count(self.heads)
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_pooling_type(pooling)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        self._add_tokenizer(writer)
        for key, tensor in self.tensors.items():
            renamed = _renamed(key)
            if renamed is not None:
                writer.add_tensor(renamed, tensor.astype(np.float16) if _is_matrix(key, tensor) else tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _add_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("default")
        writer.add_token_type_count(2)
        writer.add_token_list([_spelt(token) for token in self.vocabulary])
        control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
        writer.add_token_types([control if token in _SPECIAL else normal for token in self.vocabulary])
        writer.add_pad_token_id(self._ids["[PAD]"])
        writer.add_unk_token_id(self._ids["[UNK]"])
        writer.add_bos_token_id(self._ids["[CLS]"])
        writer.add_sep_token_id(self._ids["[SEP]"])

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    def _pieces(self, word: str) -> list[str]:
        """The longest known beginning, then of what is left, and so on; a word with an unknown part is one token."""
        pieces: list[str] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces

    def _layer(self, prefix: str, states: Array) -> Array:
        query, key, value = (
            self._linear(f"{prefix}attention.self.{part}", states).reshape(len(states), self.heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
        joined = mixed.swapaxes(0, 1).reshape(states.shape)
        attended = self._linear(prefix + "attention.output.dense", joined)
        states = self._norm(prefix + "attention.output.LayerNorm", states + attended)
        inner = _gelu(self._linear(prefix + "intermediate.dense", states))
        return self._norm(prefix + "output.LayerNorm", states + self._linear(prefix + "output.dense", inner))

    def _linear(self, name: str, states: Array) -> Array:
        return np.asarray(states @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"], np.float32)

    def _norm(self, name: str, states: Array) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * self.tensors[name + ".weight"] + self.tensors[name + ".bias"], np.float32)


def random_bert(
    vocabulary: list[str], *, width: int = 64, layers: int = 2, positions: int = 128, seed: int = 0
) -> Bert:
    """One with a classifier, and weights drawn from `seed`."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape) * shape[-1] ** -0.5 * 2, np.float32)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, Array]:
        return {name + ".weight": drawn(outputs, inputs), name + ".bias": drawn(outputs)}

    def norm(name: str) -> dict[str, Array]:
        return {name + ".weight": np.ones(width, np.float32), name + ".bias": np.zeros(width, np.float32)}

    tensors: dict[str, Any] = {
        "embeddings.word_embeddings.weight": drawn(len(vocabulary), width),
        "embeddings.position_embeddings.weight": drawn(positions, width),
        "embeddings.token_type_embeddings.weight": drawn(2, width),
        **norm("embeddings.LayerNorm"),
        **linear("classifier.dense", width, width),
        **linear("classifier.out_proj", 1, width),
    }
    for number in range(layers):
        prefix = f"encoder.layer.{number}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            tensors |= linear(prefix + part, width, width)
        tensors |= linear(prefix + "intermediate.dense", 2 * width, width) | linear(
            prefix + "output.dense", width, 2 * width
        )
        tensors |= norm(prefix + "attention.output.LayerNorm") | norm(prefix + "output.LayerNorm")
    return Bert(vocabulary, tensors, heads=4)


def _renamed(key: str) -> str | None:
    if key in _OUTER:
        return _OUTER[key]
    if not key.startswith("encoder.layer."):
        return None
    number, _, rest = key.removeprefix("encoder.layer.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blk.{number}.{_INNER[part]}.{kind}"


def _is_matrix(key: str, tensor: Array) -> bool:
    return tensor.ndim == 2 and "position" not in key and "token_type" not in key


def _spelt(token: str) -> str:
    """llama.cpp marks where a word begins, WordPiece where it goes on."""
    if token in _SPECIAL:
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def _words(text: str) -> list[str]:
    """Lower case without accents, cut at blanks, around each punctuation mark and each Chinese character."""
    spaced = ""
    for character in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(character)
        if kind == "Mn" or (kind in ("Cc", "Cf") and not character.isspace()):
            continue
        is_alone = kind[0] == "P" or 0x4E00 <= ord(character) <= 0x9FFF or character in "$+<=>^`|~"
        spaced += f" {character} " if is_alone else character
    return spaced.split()


def _gelu(values: Array) -> Array:
    return np.asarray(values * 0.5 * (1 + _erf(values / math.sqrt(2))), np.float32)


def _erf(values: Array) -> Array:
    """Abramowitz and Stegun, 7.1.26: within 2e-7."""
    steps = 1 / (1 + 0.3275911 * np.abs(values))
    series = steps * np.polyval([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], steps)
    return np.asarray(np.sign(values) * (1 - series * np.exp(-(values**2))), np.float32)
