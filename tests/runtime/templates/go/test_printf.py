"""printf: verbs, flags, widths, and mistakes that are printed. The expectations are what Go's fmt answers."""

from __future__ import annotations

import pytest

from runtime.templates.go.budget import Budget
from runtime.templates.go.printf import sprintf
from runtime.templates.go.values import Byte, List, Map


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("%d/%03d/%v", [4, 5, List(["a", 1])], "4/005/[a 1]"),
        ('%q %5s|%-4d|%.2f %x %t', ['h"i', "ab", 7, 1.005, 255, True], '"h\\"i"    ab|7   |1.00 ff true'),
        ("%+d % d %x %X %#x %o %#o %O %b %c %U %#U", [3, 3, -255, 255, 255, 8, 8, 8, 5, 233, 233, 233],
         "+3  3 -ff FF 0xff 10 010 0o10 101 é U+00E9 U+00E9 'é'"),
        ("%6.2f|%-8.3e|%g|%G|%08.3f|%+.1f", [3.14159, 1234.5, 1e21, 1e-7, -3.14159, 2.0],
         "  3.14|1.234e+03|1e+21|1E-07|-003.142|+2.0"),
        ("%x %X % x %#x %.2x", ["hé", "hé", "hé", "hé", "hello"], "68c3a9 68C3A9 68 c3 a9 0x68c3a9 6865"),
        ("%s %5.1s| %q %+q %#q", ["né", "né", "né\n", "né", "né"], 'né     n| "né\\n" "n\\u00e9" `né`'),
        ("%x %b", [1.5, 1.0], "0x1.8p+00 4503599627370496p-52"),
        ("%T %T %T %T", [1, List([]), Map({}), None], "int []interface {} map[string]interface {} <nil>"),
        ("%#v %#v %#v", [List(["a", None]), Map({"k": 1}), "q"],
         '[]interface {}{"a", interface {}(nil)} map[string]interface {}{"k":1} "q"'),
        ("%*d|%-*d|%.*f|%[2]*[1]d", [5, 1, -4, 2, 1, 3.14159], "    1|2   |3.1|5"),
        ("%[2]*[1]d", [7, 4], "   7"),
        ("%[2]d %[1]d %d", [1, 2], "2 1 2"),
        ("%d%%", [50], "50%"),
        ("%d %s %s", ["x", 3], "%!d(string=x) %!s(int=3) %!s(MISSING)"),
        ("a", [1, None], "a%!(EXTRA int=1, <nil>)"),
        ("%", [], "%!(NOVERB)"),
        ("%z %!", [1], "%!z(int=1) %!!(MISSING)"),
        ("%[5]d %[x]d", [1], "%!d(BADINDEX) %!d(BADINDEX)"),
        ("%*d", ["a", 1], "%!(BADWIDTH)1"),
        ("%s %d %v", [List(["a", 1]), List(["a", 1]), None], "[a %!s(int=1)] [%!d(string=a) 1] <nil>"),
        ("%d %v", [None, Byte(98)], "%!d(<nil>) 98"),
        ("%99999999d", [1], "%!(NOVERB)%!(EXTRA int=1)"),
        ("%05s %05d %-05d|", ["a", -3, 3], "0000a -0003 3    |"),
    ],
)  # fmt: skip
def test_format(template, values, expected):
    assert sprintf(template, values, Budget()) == expected
