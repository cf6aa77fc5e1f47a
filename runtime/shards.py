"""Weights in several GGUF files: which files make one model, in which order, and what they say together.

A shard tells its place in its header (`split.no`, from 0), how many there are (`split.count`), and how many tensors
all of them hold (`split.tensors.count`). Names of files are not asked: they are anybody's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runtime.errors import ModelUnusable
from runtime.gguf import MAX_TENSORS, Header

MAX_SHARDS = 512  # the largest known models have some forty
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_MOST_NAMED = 5


def is_shard(header: Header) -> bool:
    """Whether the file is a part of the weights only."""
    return _number(header, _COUNT) > 1


def in_order(headers: Sequence[Header]) -> list[int]:
    """The places in `headers` of the first shard, the second one and so on. One whole file is in order.

    Raises ModelUnusable, naming what is missing, or there twice, or of another model.
    """
    if len(headers) == 1 and not is_shard(headers[0]):
        return [0]
    if not all(map(is_shard, headers)):
        raise ModelUnusable("the weights are in several files that are not parts of one another")
    counts = {_number(header, _COUNT) for header in headers}
    if len(counts) > 1:
        raise ModelUnusable(f"the weights are parts of different models: of {_listed(sorted(counts))} files")
    (count,) = counts
    numbers = [_number(header, _NUMBER) for header in headers]
    for number in numbers:
        if not 0 <= number < count:
            raise ModelUnusable(f"the weights have a part {number + 1} of {count}")
    twice = sorted({number + 1 for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ModelUnusable(f"the weights have part {_listed(twice)} of {count} twice")
    missing = [number + 1 for number in range(count) if number not in numbers]
    if missing:
        raise ModelUnusable(f"the weights lack part {_listed(missing)} of {count}")
    return sorted(range(count), key=numbers.__getitem__)


def joined(headers: Sequence[Header]) -> Header:
    """What the files of one model, in order, say together: the first one's metadata, and the tensors of all.

    The keys that tell of the parting are left out: they are about files. Raises ModelUnusable.
    """
    first = headers[0]
    if len(headers) == 1:
        return first
    wanted = _number(first, _TENSORS)
    for number, header in enumerate(headers[1:], 2):
        if _number(header, _TENSORS) != wanted:
            raise ModelUnusable(f"part {number} of the weights belongs to another model")
        if header.architecture not in {"", first.architecture}:
            raise ModelUnusable(f"part {number} of the weights is of another architecture")
    tensors = tuple(replace(each, file=place) for place, header in enumerate(headers) for each in header.tensors)
    if len(tensors) != wanted:
        raise ModelUnusable(f"the parts of the weights hold {len(tensors)} tensors where there should be {wanted}")
    if len(tensors) > MAX_TENSORS:
        raise ModelUnusable(f"the weights have {len(tensors)} tensors, allowed are {MAX_TENSORS}")
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ModelUnusable("the parts of the weights hold a tensor twice")
    metadata = {key: value for key, value in first.metadata.items() if key not in {_NUMBER, _COUNT, _TENSORS}}
    return replace(first, metadata=metadata, tensors=tensors)


def _number(header: Header, key: str) -> int:
    value = header.metadata.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _listed(numbers: Sequence[int]) -> str:
    """`2`, `2 and 3`, and of a long list its beginning."""
    named = [str(number) for number in numbers[:_MOST_NAMED]]
    if len(numbers) > _MOST_NAMED:
        return f"{', '.join(named)} and {len(numbers) - _MOST_NAMED} more"
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
