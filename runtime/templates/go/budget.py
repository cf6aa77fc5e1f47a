"""What a stranger's template may cost: counted in units of work, so that the same prompt never fails by chance."""

from __future__ import annotations

import sys

MAX_WORK = 1_500_000  # nodes and operands evaluated, about a microsecond each; a long conversation takes some 100 000
MAX_STEPS = 1_000_000  # of loops
MAX_OUTPUT_BYTES = 16 * 1024**2
MAX_MADE_BYTES = 128 * 1024**2  # of all strings that functions return, kept or not
MAX_CALLS = 1000  # of templates, one in another
MAX_WIDTH = 1_000_000  # of printf


class Refused(Exception):
    """The template asks for something that cannot be; the evaluator adds the line."""


class Exhausted(Refused):
    """The template asks for more than a template may have."""


class Budget:
    """What is left of the limits during one rendering."""

    def __init__(self) -> None:
        self._work = MAX_WORK
        self._steps = MAX_STEPS
        self._made = MAX_MADE_BYTES
        self._output = MAX_OUTPUT_BYTES

    def charge(self, units: int = 1) -> None:
        self._work -= units
        if self._work < 0:
            raise Exhausted("the template takes too long")

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise Exhausted(f"the template loops more than {MAX_STEPS} times")

    def read(self, size: int) -> None:
        """Before something runs over `size` characters at the speed of C."""
        self.charge(1 + (size >> 10))

    def make(self, size: int) -> None:
        """Before `size` bytes are allocated."""
        self._made -= size
        if self._made < 0:
            raise Exhausted("the template makes too much text")
        self.charge(1 + (size >> 8))

    def made(self, text: str) -> str:
        """`text`, which a function returns, accounted for by the memory it takes."""
        self.make(sys.getsizeof(text))
        return text

    def print(self, size: int) -> None:
        """Before `size` bytes are added to the prompt."""
        self._output -= size
        if self._output < 0:
            raise Exhausted(f"the prompt is longer than {MAX_OUTPUT_BYTES} bytes")
