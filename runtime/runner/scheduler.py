"""How much of each prompt is read in the next step. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

TILE = 64  # llama.cpp computes attention of so many tokens or more by another kernel, whose rounding differs
_SAME_ALONE = 256  # beyond so many cells it has one more kernel, for a token that is computed all alone


def plan_step(decoding: int, unread: Sequence[int], limit: int) -> list[int]:
    """How many prompt tokens each reading sequence gets in a step of at most `limit` tokens.

    decoding: sequences that put in one token each; they always go first, so a long prompt never stalls them.
    unread: prompt tokens each reading sequence still has, in order of arrival. Returns as many counts, in that order.
    What is left goes to the shortest first: prompts that are read one after the other are answered sooner on average
    than prompts that are read side by side, and the last no later. The first that came moves in every step, whatever
    shorter ones come after it. Prompts are cut between tiles, never leaving less than one at the end, so that the same
    kernels read a prompt whoever else is there, and the answer is the same.
    """
    room = max(limit - decoding, 0)
    shares = [0] * len(unread)
    if unread:
        shares[0] = _slice(unread[0], min(TILE, room), room)
        room -= shares[0]
    for index in sorted(range(len(unread)), key=lambda index: unread[index]):
        room += shares[index]
        shares[index] = _slice(unread[index], room, room)
        room -= shares[index]
    if unread and not any(shares):
        shares[0] = min(unread[0], room)  # no tile fits: rather other kernels than no progress
    return shares


def _slice(unread: int, wanted: int, room: int) -> int:
    """The slice nearest below `wanted` that ends between tiles, or the smallest one; 0 where that exceeds `room`."""
    if unread <= wanted:
        return unread
    if unread < 2 * TILE:
        return unread if unread <= room else 0  # no place to cut
    whole_tiles = min(wanted, unread - TILE) // TILE * TILE
    smallest = max(whole_tiles, TILE)
    return smallest if smallest <= room else 0


def reusable(shared: int, prompt: int, *, untiled: int, tiled: int) -> int:
    """How many of the `shared` tokens at the beginning of a prompt of `prompt` tokens need not be computed again.

    At least one is: only computing gives the logits that follow. A prompt below a tile goes on after tokens that were
    computed without tiles, of which there are `untiled` at the beginning; a longer one begins again between two tiles,
    after tokens that were read in whole ones, of which there are `tiled`: the answer is what it would be without a
    cache. For long ones that cannot be had, and would cost more.
    """
    if prompt > _SAME_ALONE:
        return min(shared, prompt - 1)
    if prompt < TILE:
        return min(shared, untiled, prompt - 1)
    return max(min(shared, tiled, prompt - TILE), 0) // TILE * TILE
