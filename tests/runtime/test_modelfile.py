"""Modelfiles read: every rule of the grammar, and what the lines mean. Source: the Ollama API, "Modelfile"."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.modelfile import LEGACY_PARAMETERS, MAX_BYTES, Modelfile, ModelfileInvalid, parse, parse_bytes
from runtime.options import merge_options

UNKNOWN = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", '
    '"parameter", "message", or "requires"'
)
ROLE = 'message role must be one of "system", "user", or "assistant"'


def test_everything_at_once() -> None:
    found = parse(
        """# a comment
PARAMETER temperature 0.7
from ./weights.gguf
FROM ./projector.gguf
Adapter ./lora.gguf
DRAFT ./small.gguf
TEMPLATE {{ .Prompt }}
SYSTEM You are # not a comment
RENDERER qwen3
PARSER qwen3
REQUIRES v0.14.0
PARAMETER stop <a>
PARAMETER stop <b c>
PARAMETER num_ctx 4096
PARAMETER num_ctx 8192
LICENSE MIT
LICENSE Apache
MESSAGE user Hi
MESSAGE assistant "Hello
there"
"""
    )

    assert found == Modelfile(
        sources=("./weights.gguf", "./projector.gguf"),
        adapters=("./lora.gguf",),
        draft="./small.gguf",
        template="{{ .Prompt }}",
        system="You are # not a comment",
        renderer="qwen3",
        parser="qwen3",
        requires="0.14.0",
        parameters={"temperature": 0.7, "stop": ["<a>", "<b c>"], "num_ctx": 8192},
        licenses=("MIT", "Apache"),
        messages=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello\nthere"}),
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("SYSTEM plain", "plain"),
        ("SYSTEM \t  outer blanks go, inner  stay \t", "outer blanks go, inner  stay"),
        ("system any case of the command", "any case of the command"),
        ("  SYSTEM indented", "indented"),
        ("SYSTEM # is data", "# is data"),
        ("SYSTEM 'single quotes are letters'", "'single quotes are letters'"),
        (r"SYSTEM no \n escapes", r"no \n escapes"),
        ('SYSTEM "quoted"', "quoted"),
        ('SYSTEM "  blanks kept  "', "  blanks kept  "),
        ('SYSTEM "a "b" c"', 'a "b" c'),
        ('SYSTEM """a "b" c"""', 'a "b" c'),
        ('SYSTEM """"quoted""""', '"quoted"'),
        ('SYSTEM "two\nlines"', "two\nlines"),
        ('SYSTEM """\nnewline at the start kept\n"""', "\nnewline at the start kept\n"),
        ('SYSTEM "text after a quote" keeps it open"', 'text after a quote" keeps it open'),
        ('SYSTEM "after" more\nlines"', 'after" more\nlines'),
        ('SYSTEM """after""" more\nlines"""', 'after""" more\nlines'),
        ('SYSTEM "closed before blanks"  \t', "closed before blanks"),
        ('SYSTEM """\nclosed before blanks"""  \t', "\nclosed before blanks"),
        ('SYSTEM "kept at the end   \nof a line"', "kept at the end   \nof a line"),
        ('SYSTEM "\n\n"', "\n\n"),
        ('SYSTEM "\nFROM no command\n"', "\nFROM no command\n"),
        ('SYSTEM "a\r\nb"', "a\r\nb"),
        ('SYSTEM "a\rb"', "a\rb"),
        ('SYSTEM ""', ""),
        ('SYSTEM """"""', ""),
        ('SYSTEM """"\n"""', '"\n'),
        ("SYSTEM ", ""),
        ("SYSTEM in\x00vi\u200bsi\x1bble\u00a0", "invisible"),
        ("SYSTEM a\u2028b", "ab"),
        ("SYSTEM a\tb", "a\tb"),
        ("SYSTEM ünïcödé 船 🚢", "ünïcödé 船 🚢"),
        ("SYSTEM first\nSYSTEM last", "last"),
        ("SYSTEM said\nSYSTEM ", ""),
    ],
)
def test_values(line: str, text: str) -> None:
    for start, end in (
        ("FROM a\n", ""),
        ("FROM a\r\n", "\r\n"),
        ("FROM a\r", "\rPARAMETER seed 1"),
        ("\n\nFROM a\n", "\n"),
    ):
        assert parse(f"{start}{line}{end}").system == text


@pytest.mark.parametrize("name", ["system", "user", "assistant"])
def test_a_message_has_one_of_three_roles(name: str) -> None:
    assert parse(f"FROM a\nMESSAGE  {name} \thello ").messages == ({"role": name, "content": "hello"},)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "no FROM line", None),
        ("# FROM a", "no FROM line", None),
        ("SYSTEM a\n", "no FROM line", None),
        ('FROM ""', "no FROM line", None),
        ("FROM a\nBAD x", f"(line 2): {UNKNOWN}", 2),
        ("\r\nFROM a\r\n\r\nBAD x", f"(line 4): {UNKNOWN}", 4),
        ("FROM a\rBAD x", f"(line 2): {UNKNOWN}", 2),
        ('FROM a\nSYSTEM "\n\n"\nBAD x', f"(line 5): {UNKNOWN}", 5),
        ("FROM\n", f"(line 1): {UNKNOWN}", 1),
        ("FROM a\nSYSTEM\nFROM b", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\nSYS TEM", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\nFR0M b", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\n1", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\n\x0bSYSTEM b", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\nSYSTEM\u00a0b", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\n// no comment", f"(line 2): {UNKNOWN}", 2),
        ("FROM a\nSYSTEM", "unexpected EOF", 2),
        ('FROM a\nSYSTEM "open', "unexpected EOF", 2),
        ('FROM a\nSYSTEM "', "unexpected EOF", 2),
        ('FROM a\nSYSTEM """open"', "unexpected EOF", 2),
        ('FROM a\nSYSTEM """"', "unexpected EOF", 2),
        ('FROM a\nSYSTEM """"""x', "unexpected EOF", 2),
        ('FROM a\nSYSTEM "closed" not\n', "unexpected EOF", 3),
        ("FROM a\nPARAMETER temperature\n", "unexpected EOF: temperature", 2),
        ("FROM a\nPARAMETER temperature", "unexpected EOF: temperature", 2),
        ("FROM a\nPARAMETER", "unexpected EOF", 2),
        ("FROM a\nPARAMETER ", "unexpected EOF: ", 2),
        ("FROM a\nPARAMETER top.k 1", "unexpected EOF: top", 2),
        ("FROM a\nMESSAGE user\n", "unexpected EOF: user", 2),
        ("FROM a\nMESSAGE tool hello", f"(line 2): {ROLE}", 2),
        ("FROM a\nMESSAGE User hello", f"(line 2): {ROLE}", 2),
        ("FROM a\nREQUIRES soon", "requires must be a valid semver (e.g. 0.14.0)", None),
        ("FROM a\nREQUIRES 01.2.3", "requires must be a valid semver (e.g. 0.14.0)", None),
        ("FROM a\nREQUIRES vv1.2.3", "requires must be a valid semver (e.g. 0.14.0)", None),
        ("FROM a\nREQUIRES 1.2-rc1", "requires must be a valid semver (e.g. 0.14.0)", None),
        ("FROM a\nREQUIRES 1.2.3.4", "requires must be a valid semver (e.g. 0.14.0)", None),
        ("FROM a\nREQUIRES ", "requires must be a valid semver (e.g. 0.14.0)", None),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str, line: int | None) -> None:
    with pytest.raises(ModelfileInvalid) as refused:
        parse(text)

    assert str(refused.value) == message
    assert refused.value.detail.get("line") == line


@pytest.mark.parametrize(
    ("said", "kept"),
    [("0.14.0", "0.14.0"), ("v0.14.0", "0.14.0"), ("1", "1"), ("v1.2", "1.2"), ("1.2.3-rc.1+b.05", "1.2.3-rc.1+b.05")],
)
def test_a_required_version_is_kept_without_its_letter(said: str, kept: str) -> None:
    assert parse(f"FROM a\nREQUIRES {said}").requires == kept


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("num_ctx 4096", 4096),
        ("num_ctx +1", 1),
        ("seed -1", -1),
        ("main_gpu 1", 1),
        ("draft_num_predict 8", 8),
        ("seed 9223372036854775807", 2**63 - 1),
        ("temperature 0.7", 0.7),
        ("temperature 1", 1.0),
        ("temperature .5", 0.5),
        ("temperature 5.", 5.0),
        ("temperature -1e-3", -0.001),
        ("temperature 0.123456789012", 0.12345679),
        ("temperature 1e-99", 0.0),
        ("temperature 3.4028234663852886e38", 3.4028235e38),
        ("temperature 16777217", 16777216.0),
        ("use_mmap true", True),
        ("use_mmap F", False),
        ("use_mmap 1", True),
        ('stop "two words"', ["two words"]),
        ("stop 5", ["5"]),
        ("stop ", [""]),
    ],
)
def test_parameters_are_typed_by_their_option(line: str, value: object) -> None:
    found = parse(f"FROM a\nPARAMETER {line}").parameters

    name = line.split(" ", maxsplit=1)[0]
    assert found == {name: value}
    assert type(found[name]) is type(value)
    merge_options(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_ctx 1.5", "invalid int value [1.5]"),
        ("num_ctx x", "invalid int value [x]"),
        ("num_ctx 1_000", "invalid int value [1_000]"),
        ("num_ctx ٤", "invalid int value [٤]"),
        ("num_ctx ", "invalid int value []"),
        ("seed 9223372036854775808", "invalid int value [9223372036854775808]"),
        ("temperature warm", "invalid float value [warm]"),
        ("temperature nan", "invalid float value [nan]"),
        ("temperature 1e39", "invalid float value [1e39]"),
        ("temperature 1e999", "invalid float value [1e999]"),
        ("use_mmap yes", "invalid bool value [yes]"),
        ("Temperature 1", "unknown parameter 'Temperature'"),
        ("numa true", "unknown parameter 'numa'"),
    ],
)
def test_parameters_that_cannot_be_typed(line: str, message: str) -> None:
    with pytest.raises(ModelfileInvalid) as refused:
        parse(f"FROM a\nPARAMETER {line}")

    assert str(refused.value) == message


@pytest.mark.parametrize(
    "name",
    ["penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat", "mirostat_tau",
     "mirostat_eta"],
)  # fmt: skip
def test_deprecated_parameters_are_dropped_with_a_warning(name: str) -> None:
    found = parse(f"FROM a\nPARAMETER {name} whatever\nPARAMETER seed 1")

    assert found.parameters == {"seed": 1}
    assert found.warnings == (f"warning: parameter {name} is deprecated",)


@pytest.mark.parametrize("name", sorted(LEGACY_PARAMETERS))
def test_names_to_ignore_are_dropped_in_silence(name: str) -> None:
    found = parse(f"FROM a\nPARAMETER {name} whatever", ignored=LEGACY_PARAMETERS)

    assert (found.parameters, found.warnings) == ({}, ())


@pytest.mark.parametrize(
    "raw",
    [
        b"FROM \xc3\xbc",
        b"\xef\xbb\xbfFROM \xc3\xbc",
        "\ufeffFROM ü".encode("utf-16-le"),
        "\ufeffFROM ü".encode("utf-16-be"),
    ],
)
def test_encodings(raw: bytes) -> None:
    assert parse_bytes(raw).sources == ("ü",)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"FROM \xff", "not UTF-8 text"),
        ("\ufeffFROM a".encode("utf-16-le")[:-1], "not UTF-16 text"),
        (b"\xff\xfeF\x00R\x00\x00\xd8", "not UTF-16 text"),
        (b"FROM a\n" + b"#" * MAX_BYTES, "more than"),
    ],
)
def test_files_that_are_no_text_or_too_long(raw: bytes, words: str) -> None:
    with pytest.raises(ModelfileInvalid, match=words):
        parse_bytes(raw)


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    _try(raw)


_WORDS = (
    "FROM",
    "PARAMETER",
    "MESSAGE",
    "SYSTEM",
    "stop",
    "user",
    "seed",
    '"',
    '"""',
    " ",
    "\t",
    "\n",
    "\r",
    "#",
    "1",
    "x",
)


@given(st.lists(st.sampled_from(_WORDS), max_size=40).map("".join))
def test_anything_that_looks_like_one_is_read_or_refused(text: str) -> None:
    _try(b"FROM a\n" + text.encode())


def _try(raw: bytes) -> None:
    try:
        found = parse_bytes(raw)
    except ModelfileInvalid as refused:
        assert str(refused)
    else:
        assert all(found.sources)
        merge_options(found.parameters)


@pytest.mark.parametrize(
    "piece",
    ["#\n", "\n", "SYSTEM x\n", 'SYSTEM "', 'SYSTEM "\n', '"', '"\n', '""" \n', "PARAMETER stop x\n", "\x00", "\r", " ",
     "MESSAGE user ", "FROM a "],
)  # fmt: skip
def test_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    short, long = (b"FROM a\n" + (piece * (size // len(piece))).encode() for size in (2**15, 2**20))

    for _ in range(3):  # a machine that is busy with something else is no reason to fail
        quick, slow = _seconds(short), _seconds(long)
        if slow < 32 * 8 * quick:
            return
    pytest.fail(f"32 times the text took {slow / quick:.0f} times as long")


def _seconds(raw: bytes) -> float:
    start = time.process_time()
    for _ in range(8 if len(raw) < 2**16 else 1):
        with suppress(ModelfileInvalid):
            parse_bytes(raw)
    spent = time.process_time() - start
    return spent / 8 if len(raw) < 2**16 else spent
