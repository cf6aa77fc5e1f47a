"""A model that ranks, small enough to be written anew for every test: real WordPiece, a classifier, random weights."""

from __future__ import annotations

import string
from pathlib import Path

import gguf

from tests.bert import Bert, random_bert

_WORDS = ("the", "is", "what", "panda", "bear", "ship", "sails", "hello", "world", "paris", "france", "capital")


def rank_bert(*, positions: int = 128, seed: int = 0) -> Bert:
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *_WORDS]
    return random_bert(tokens, positions=positions, seed=seed)


def write_rank_gguf(path: Path, *, positions: int = 128, seed: int = 0) -> Path:
    return rank_bert(positions=positions, seed=seed).write(path, pooling=gguf.PoolingType.RANK, name="rank")
