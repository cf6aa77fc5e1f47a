"""Text that waits, addressed by its place in the stream; and what may be dropped from around a call."""

from __future__ import annotations

import re

# both ordinary bars and DeepSeek's full-width ones (U+FF5C)
_WRAPPING = r"</[\w|-]{1,60}>|<[|\uff5c][^<>\s]{1,60}[|\uff5c]>|\[/?[A-Z][A-Z_]{1,30}\]|```(?:json)?"
_LONGEST_WRAPPING = 64
_CALL_ID = re.compile(r"\[CALL_ID\]\w{0,64}")


class Backlog:
    """Pieces of a stream from `start` to `end`. Joined only to be read, released once they are settled."""

    def __init__(self, position: int = 0) -> None:
        self.start = self.end = self._base = position
        self._pieces: list[str] = []

    def append(self, piece: str) -> None:
        if self._base < self.start:
            self._pieces, self._base = [self.text(self.start, self.end)], self.start
        self._pieces.append(piece)
        self.end += len(piece)

    def text(self, start: int, end: int) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0][start - self._base : end - self._base] if self._pieces else ""

    def whole(self, position: int) -> tuple[str, int]:
        """All of the text without a copy, and where in it `position` is."""
        self.text(self.end, self.end)
        return (self._pieces[0] if self._pieces else ""), position - self._base

    def release(self, end: int) -> str:
        """The text up to `end`, which is no longer kept."""
        text = self.text(self.start, end)
        self.start = end
        return text

    def __len__(self) -> int:
        return self.end - self.start


class Wrapping:
    """The tags, brackets and fences that models write around calls: no content where they touch a call."""

    def __init__(self, tag: str) -> None:
        pattern = f"{re.escape(tag)}|{_WRAPPING}"
        self._longest = max(len(tag), _LONGEST_WRAPPING)
        self._before, self._after = re.compile(pattern), re.compile(f"(?:{pattern})$")

    def peeled(self, text: str) -> str:
        """`text` without the wrapping at its two ends."""
        text = _CALL_ID.sub("", text)
        start, end = 0, len(text)
        while start < end:
            if (match := self._before.match(text, start, end)) is not None:
                start = match.end()
            elif text[start].isspace() or text[start] in ",;]}":
                start += 1
            else:
                break
        while start < end:
            if (match := self._after.search(text, max(start, end - self._longest), end)) is not None:
                end = match.start()
            elif text[end - 1].isspace() or text[end - 1] in ",;[{":
                end -= 1
            else:
                break
        return text[start:end]
