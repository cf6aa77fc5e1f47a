"""What the lanes of the KV cache hold, as a radix tree of token ids: which of them begin as a prompt does.

Each caller has a tree of their own. Nobody's prompt is found by another's, so nobody gains from it, nor learns from
how soon an answer begins what somebody else has asked. Pure: numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Node:
    """`edge` leads here; `lanes` hold all of it, and everything on the way. Lanes that end inside the edge are none."""

    edge: list[int] = field(default_factory=list)
    lanes: set[int] = field(default_factory=set)
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """`lanes` hold the first `length` tokens of what was looked up."""

    length: int
    lanes: frozenset[int]


class Prefixes:
    """The token histories of all lanes. A lane has one history, of one caller."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._held: dict[int, tuple[str, list[int]]] = {}

    def put(self, lane: int, caller: str, tokens: Sequence[int]) -> None:
        """`lane` holds `tokens` now, and nothing else."""
        self.remove(lane)
        if not tokens:
            return
        history = list(tokens)
        self._held[lane] = (caller, history)
        node, at = self._roots.setdefault(caller, _Node()), 0
        node.lanes.add(lane)
        while at < len(history):
            child = node.children.get(history[at])
            if child is None:
                node.children[history[at]] = _Node(history[at:], {lane})
                return
            same = common_prefix(child.edge, history[at:])
            if same < len(child.edge):
                child = _split(node, child, same)
            child.lanes.add(lane)
            node, at = child, at + same

    def remove(self, lane: int) -> None:
        """`lane` holds nothing any more."""
        if lane not in self._held:
            return
        caller, history = self._held.pop(lane)
        node, at = self._roots[caller], 0
        node.lanes.discard(lane)
        if not node.lanes:
            del self._roots[caller]
        while at < len(history):
            first = history[at]
            child = node.children[first]
            child.lanes.discard(lane)
            at += len(child.edge)
            if not child.lanes:
                del node.children[first]  # with all below it: whoever is there has come through here
                if node.edge and len(node.children) == 1:
                    _join(node)
                return
            if len(child.children) == 1:
                _join(child)
            node = child

    def matches(self, caller: str, tokens: Sequence[int]) -> Iterator[Match]:
        """Lanes of `caller` that begin as `tokens` do, the longest match first, every lane once."""
        node = self._roots.get(caller)
        found: list[tuple[int, set[int]]] = []
        at = 0
        while node is not None and at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                break
            same = common_prefix(child.edge, tokens[at : at + len(child.edge)])
            at += same
            found.append((at, child.lanes))
            node = child if same == len(child.edge) else None
        seen: set[int] = set()
        for length, lanes in reversed(found):
            if fresh := frozenset(lanes - seen):
                yield Match(length, fresh)
            seen |= lanes


def _split(parent: _Node, child: _Node, at: int) -> _Node:
    """The new node `at` tokens into the edge of `child`."""
    upper = _Node(child.edge[:at], set(child.lanes), {child.edge[at]: child})
    parent.children[child.edge[0]] = upper
    child.edge = child.edge[at:]
    return upper


def _join(node: _Node) -> None:
    """Take the only child into `node`, where nobody ends between them."""
    (child,) = node.children.values()
    if child.lanes == node.lanes:
        node.edge, node.children = node.edge + child.edge, child.children


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with; comparing slices is done in C."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
