"""Names, tags, references and model names."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digest import Digest
from storage.errors import DigestInvalid, NameInvalid, TagInvalid
from storage.reference import ModelName, RepositoryName, Tag, check_namespace, parse_reference


@pytest.mark.parametrize(
    "text",
    ["a", "a/b", "a/b/c/d", "/".join("abcdefghijkl"), "a.b/c_d/e__f/g-h/i---j", "0/1", "a/blobs/uploads", "a" * 255],
)
def test_a_legal_name_is_kept(text):
    assert str(RepositoryName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a\n",
            "a/b\n",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "_a",
        ),
        *("a b", "a:b", "a@b", "../a", "a/..", "é", "a\0", "a" * 256),
    ],
)
def test_an_illegal_name_is_refused(text):
    with pytest.raises(NameInvalid):
        RepositoryName.parse(text)


def test_the_namespace_is_the_first_component():
    assert RepositoryName("hf.co/org/model").namespace == "hf.co"


def test_a_namespace_is_one_component():
    with pytest.raises(NameInvalid):
        check_namespace("a/b")


@pytest.mark.parametrize("text", ["a", "A", "_", "1.0", "a-._", "a" * 128])
def test_a_legal_tag_is_kept(text):
    assert parse_reference(text) == Tag(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a\n", "a/b", "a b", "a" * 129, "é"])
def test_an_illegal_tag_is_refused(text):
    with pytest.raises(TagInvalid):
        parse_reference(text)


def test_a_reference_with_a_colon_is_a_digest():
    digest = Digest.of(b"")

    assert parse_reference(str(digest)) == digest
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:baddigeststring")


@pytest.mark.parametrize(
    ("text", "repository", "tag", "display"),
    [
        ("m", "library/m", "latest", "m:latest"),
        ("M:Q4", "library/m", "Q4", "m:Q4"),
        ("a/m:7b", "a/m", "7b", "a/m:7b"),
        ("h/m", "h/m", "latest", "h/m:latest"),
        ("h/library/m:t", "h/library/m", "t", "h/library/m:t"),
        ("h:5000/a/m", "h__5000/a/m", "latest", "h:5000/a/m:latest"),
        ("http://h:5000/a/m:x", "h__5000/a/m", "x", "h:5000/a/m:x"),
        ("hf.co/Org/Model:Q4_K_M", "hf.co/org/model", "Q4_K_M", "hf.co/org/model:Q4_K_M"),
        ("registry.ollama.ai/library/m", "library/m", "latest", "m:latest"),
        ("Registry.Ollama.AI/ns/m:x", "ns/m", "x", "ns/m:x"),
        (" m ", "library/m", "latest", "m:latest"),
    ],
)
def test_a_model_name_is_a_repository_and_a_tag(text, repository, tag, display):
    name = ModelName.parse(text)

    assert (str(name.repository), str(name.tag), name.display) == (repository, tag, display)
    assert ModelName.of(name.repository, name.tag) == name
    assert ModelName.parse(name.display) == ModelName.parse(name.full) == name


def test_the_full_form_names_everything():
    assert ModelName.parse("x").full == "registry.ollama.ai/library/x:latest"


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "m:", "a/m:", ":t", "/m", "/n/m", "//m", "a/", "h/a/b/m", "m@sha256:ab", "a b", "m:t:u", "a/m\n/x"),
        *(".m", "-m", "a.b/m", "m_", "a..b", "é", "m:" + "t" * 129, "m" * 81, "h__80/a/m", "x" * 2000, "..", "a/.."),
    ],
)
def test_what_is_no_model_name_is_refused(text):
    with pytest.raises(NameInvalid):
        ModelName.parse(text)


@pytest.mark.parametrize("repository", ["alone", "a.b/m", "a/b/c/d", "h/a.b/m"])
def test_a_repository_that_no_model_name_can_say_has_none(repository):
    assert ModelName.of(RepositoryName(repository), Tag("latest")) is None


@given(st.text(max_size=40))
def test_parsing_refuses_or_returns_values_and_nothing_else(text):
    for parse in (ModelName.parse, RepositoryName.parse, parse_reference):
        with suppress(NameInvalid, TagInvalid, DigestInvalid):
            parse(text)
