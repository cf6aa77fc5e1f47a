"""What a LoRA adapter must be before llama.cpp sees it: pairs of thin matrices that fit the weights they change.

llama.cpp compares two of their sides and multiplies whatever the rest is; where that cannot be multiplied, it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from runtime.errors import GGUFInvalid
from runtime.gguf import Header, Tensor

MAX_ADAPTERS = 16
_TYPES = {"F32", "F16", "BF16", "Q8_0"}  # what converters write
_TOKEN_TABLE = "token_embd.weight"  # noqa: S105  # no secret
_OUTPUT = "output.weight"
_SKIPPED = "_norm.weight"  # llama.cpp leaves them out: most adapters work without


def check_adapter(header: Header, base: Header) -> None:
    """Raise GGUFInvalid unless the file changes weights that `base` has, in a way that llama.cpp can compute."""
    _require(header.text("general.type") == "adapter", "no word that it is one")
    _require(header.text("adapter.type") == "lora", "another type than lora")
    architecture = header.architecture
    _require(architecture == base.architecture, f"another architecture than its model: {architecture[:40]!r}")
    alpha = header.metadata.get("adapter.lora.alpha", 0.0)
    _require(isinstance(alpha, float) and isfinite(alpha), "an alpha that is no number")
    _require("adapter.alora.invocation_tokens" not in header.metadata, "tokens that switch it on (aLoRA)")
    tensors = {tensor.name: tensor for tensor in base.tensors}
    pairs = _pairs(header)
    for name, (down, up) in pairs.items():
        target = tensors.get(name)
        _require(target is not None, f"a change of {name!r}, which its model has not")
        assert target is not None
        _check_pair(target, down, up, is_tied=_OUTPUT not in tensors)


def _pairs(header: Header) -> Mapping[str, tuple[Tensor, Tensor]]:
    """The name of a weight → the matrices whose product is added to it."""
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in header.tensors:
        if tensor.name.endswith(_SKIPPED):
            continue
        name, _, half = tensor.name.rpartition(".")
        _require(half in {"lora_a", "lora_b"}, f"a tensor {tensor.name!r}, which is no half of a change")
        _require(tensor.type in _TYPES, f"a tensor {tensor.name!r} of type {tensor.type}")
        _require(0 not in tensor.dims, f"an empty tensor {tensor.name!r}")
        halves.setdefault(name, {})[half] = tensor
    _require(bool(halves), "no changes of weights")
    for name, found in halves.items():
        _require(len(found) == 2, f"one half only of the change of {name!r}")
    return {name: (found["lora_a"], found["lora_b"]) for name, found in halves.items()}


def _check_pair(target: Tensor, down: Tensor, up: Tensor, *, is_tied: bool) -> None:
    """down: lora_a, (inputs, rank); up: lora_b, (rank, outputs). Of the table of tokens the sides are swapped."""
    fits = f"a change of {target.name!r} of another shape"
    _require(len(target.dims) >= 2, f"a change of {target.name!r}, which is no matrix")
    first, second = _shape(down), _shape(up)
    inputs, outputs, *rest = _shape(target)
    _require(first[2:] == second[2:] == tuple(rest), fits)
    _require(first[0] == second[0] if target.name == _TOKEN_TABLE else first[1] == second[0], fits)
    if target.name == _TOKEN_TABLE:
        _require((first[1], second[1]) == (outputs, inputs), fits)
        _require(not is_tied, "a change of the table of tokens, which is the output of its model as well")
    else:
        _require(not target.name.endswith(_TOKEN_TABLE), f"a change of {target.name!r}, which cannot be made")
        _require((first[0], second[1]) == (inputs, outputs), fits)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """All four sides: those that are not stored are 1."""
    return (*tensor.dims, 1, 1, 1, 1)[:4]


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise GGUFInvalid(f"not an adapter that can be used: it has {otherwise}")
