"""Archives that were made to harm, or were damaged on their way: refused as a whole, before anything is stored."""

from __future__ import annotations

import io
import json
import tarfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from registry.carry.errors import ArchiveInvalid, CarryError, SignerUnknown
from registry.carry.headers import ending, header, padding
from registry.carry.reader import Archive, opened
from registry.carry.signature import Trust, sign, signer_of
from tests.registry.carried import KEY, Layout, Stores, entry, export, flip
from tests.stored_models import push_model

BLOB = f"blobs/sha256/{'0' * 64}"
OTHER = PrivateKey.from_seed(b"o" * 32)


def a_layout() -> Layout:
    layout = Layout()
    layout.model("acme/llama:v1", layout.blob(b"GGUF"))
    return layout


def refused(path: Path) -> str:
    with pytest.raises(CarryError) as error, opened(path):
        pass
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (entry("/etc/passwd", size=9), "no place"),
        (entry("../../etc/passwd"), "no place"),
        (entry("blobs/sha256/../../../x"), "no place"),
        (entry("blobs/sha256/" + "A" * 64), "no place"),
        (entry("blobs/md5/" + "0" * 32), "no place"),
        (entry("././index.json"), "no place"),
        (entry("manifest.json"), "no place"),
        (entry("x\n\x1b[2Jy"), "no place"),
        (entry("blobs/../..", tarfile.DIRTYPE), "no place"),
        (entry(BLOB, tarfile.SYMTYPE, link="/etc/passwd"), "symbolic link"),
        (entry(BLOB, tarfile.LNKTYPE, link="index.json"), "hard link"),
        (entry("index.json", tarfile.SYMTYPE, link="/etc/passwd"), "symbolic link"),
        (entry(BLOB, tarfile.CHRTYPE), "device"),
        (entry(BLOB, tarfile.BLKTYPE), "device"),
        (entry(BLOB, tarfile.FIFOTYPE), "pipe"),
        (entry(BLOB, tarfile.CONTTYPE), "unknown kind"),
        (entry(BLOB, b"Z"), "unknown kind"),
        (entry(BLOB, GNU_sparse_major="1", GNU_sparse_minor="0"), "sparse"),
        (entry(BLOB, path="/etc/passwd"), "no place"),
        (entry(BLOB, size=512, comment="x" * 5000), "names and attributes"),
        (entry(BLOB, **{f"key{n}": "x" for n in range(70)}), "attributes"),
        (entry("index.json", size=3), "twice"),
        (entry("oci-layout"), "twice"),
        (entry("tonnage-signature.json", size=100), "cannot be read"),
        (entry("tonnage-signature.json", size=5000), "more than 4096 bytes"),
    ],
)  # fmt: skip
def test_an_entry_that_no_layout_has_is_refused(tmp_path: Path, extra: tarfile.TarInfo, said: str) -> None:
    assert said in refused(a_layout().write(tmp_path / "a.tar", extra))


def test_a_blob_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused(a_layout().write(tmp_path / "a.tar", entry(BLOB), entry(f"./{BLOB}")))


@pytest.mark.parametrize("size", ["-1", "1" * 30, "1e3", "", "99999999999"])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, size: str) -> None:
    """As an attribute, which comes before what the header says."""
    extra = tarfile.TarInfo(BLOB)
    extra.pax_headers = {"size": size}

    assert "a.tar: " in refused(a_layout().write(tmp_path / "a.tar", extra))


@pytest.mark.parametrize("field", [b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"99999999999\0", b"77777777777\0"])
def test_a_size_in_the_header_that_lies_is_refused(tmp_path: Path, field: bytes) -> None:
    path = a_layout().write(tmp_path / "a.tar")
    data = path.read_bytes()
    path.write_bytes(_with(data[:512], 124, field) + data[512:])

    assert "a.tar: " in refused(path)


def _with(block: bytes, at: int, field: bytes) -> bytes:
    """The header with another field, and the sum that fits it."""
    block = block[:at] + field + block[at + len(field) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@pytest.mark.parametrize("cut", [0, 100, 512, 600, 1024, 2048, 3000, "in the last entry", "its end", "half its end"])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, cut: int | str) -> None:
    path = a_layout().write(tmp_path / "a.tar")
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    path.write_bytes(data[: {"in the last entry": end - 1, "its end": end, "half its end": end + 512}.get(cut, cut)])

    assert "cut off" in refused(path)


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_what_every_layout_has_must_be_there(tmp_path: Path, name: str) -> None:
    layout = a_layout()
    path = layout.write(tmp_path / "a.tar")
    del layout.entries[name]
    with tarfile.open(path, "w") as tar:
        for each, data in layout.entries.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    assert f"there is no {name}" in refused(path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"schemaVersion":2,"layers":[],"config":{"mediaType":"a","digest":"sha256:%064d","size":1}}' % 0, "no in"),
        (b'{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"../../x","size":1}]}', "cannot be read"),
        (json.dumps({"schemaVersion": 2, "manifests": [
            {"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": 1,
             "annotations": {"org.opencontainers.image.ref.name": "a/b:c"}}] * 2}).encode(), "two models"),
        (b'{"schemaVersion":2,"manifests":[],"x":"' + b"x" * 2**22 + b'"}', "more than"),
    ],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(tmp_path: Path, index: bytes, said: str) -> None:
    layout = Layout()
    layout.entries["index.json"] = index or b" "

    assert said in refused(layout.write(tmp_path / "a.tar"))


@pytest.mark.parametrize("text", [b"", b"x", b"[1]", b'{"imageLayoutVersion":2}', b'{"imageLayoutVersion":"2.0.0"}'])
def test_another_layout_than_ours_is_refused(tmp_path: Path, text: bytes) -> None:
    layout = a_layout()
    layout.entries["oci-layout"] = text

    assert "version 1" in refused(layout.write(tmp_path / "a.tar"))


def test_what_is_no_tar_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"GGUF" * 1000)
    assert "not a tar archive" in refused(tmp_path / "a.tar")
    assert "No such file" in refused(tmp_path / "b.tar")
    assert "directory" in refused(tmp_path)


def test_more_entries_than_anybody_needs_are_refused(tmp_path: Path) -> None:
    """A header each, of a name that differs in eight digits; only the header's sum has to follow."""
    template = header(BLOB, 0)
    with (tmp_path / "a.tar").open("wb") as file:
        for count in range(50_001):
            file.write(_with(template, 13, b"%08d" % count))
        file.write(ending(file.tell()))

    assert "more than 50000 entries" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extensions_without_end_are_refused(tmp_path: Path, kind: bytes) -> None:
    body = b"12 a=bbbbbb\n"
    piece = _with(header("x", len(body)), 156, kind) + body + padding(len(body))
    (tmp_path / "a.tar").write_bytes(piece * 10)

    assert "more than 4 attributes" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize("records", [b"12 path=x\n  ", b"11 size=1\n  "])
def test_one_name_or_size_for_all_entries_is_refused(tmp_path: Path, records: bytes) -> None:
    records = records.strip(b" ")
    records = b"%d" % len(records) + records[2:]
    piece = _with(header("x", len(records)), 156, tarfile.XGLTYPE) + records + padding(len(records))
    (tmp_path / "a.tar").write_bytes(piece + a_layout().write(tmp_path / "b.tar").read_bytes())

    assert "for all entries" in refused(tmp_path / "a.tar")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    store = Stores(folder).new()
    push_model(store, "acme/llama", None, model=b"GGUF")
    export(store, folder / "a.tar", "acme/llama")
    return folder / "a.tar"


def signer(path: Path) -> Archive:
    with opened(path) as archive:
        return archive


@pytest.mark.parametrize(
    "trust",
    [
        Trust(own=KEY.public.fingerprint),
        Trust(fingerprints=frozenset({OTHER.public.fingerprint, KEY.public.fingerprint})),
        Trust(any_signer=True),
    ],
)
def test_a_signer_that_the_operator_knows_is_believed(signed: Path, trust: Trust) -> None:
    assert KEY.public.fingerprint in trust.admit(signer(signed).signer)


@pytest.mark.parametrize("trust", [Trust(), Trust(own=OTHER.public.fingerprint, fingerprints=frozenset({"SHA256:x"}))])
def test_a_signer_that_nobody_named_is_refused_with_what_to_type(signed: Path, trust: Trust) -> None:
    with pytest.raises(SignerUnknown, match=f"--trust {KEY.public.fingerprint}".replace("+", r"\+")):
        trust.admit(signer(signed).signer)


def test_what_nobody_signed_needs_a_word_of_the_operator(tmp_path: Path) -> None:
    found = signer(a_layout().write(tmp_path / "a.tar")).signer

    with pytest.raises(SignerUnknown, match="--any-signer"):
        Trust(own=KEY.public.fingerprint).admit(found)
    assert Trust(any_signer=True).admit(found) == "not signed"


@pytest.mark.parametrize("needle", [b"acme/llama:latest", b'"signature":"'])
def test_a_flipped_bit_in_index_or_signature_is_refused_whoever_is_trusted(
    signed: Path, tmp_path: Path, needle: bytes
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(signed.read_bytes())
    flip(path, needle)

    assert refused(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: sign(OTHER, index + b" "),
        lambda index: sign(OTHER, index).replace(OTHER.public.line.encode(), KEY.public.line.encode()),
        lambda index: json.dumps({"key": KEY.public.line, "signature": "AAAA"}).encode(),
        lambda index: json.dumps({"key": "ssh-rsa AAAA", "signature": "AAAA"}).encode(),
        lambda index: b"[]",
        lambda index: b"[" * 4000,
    ],
)  # fmt: skip
def test_a_signature_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    layout = a_layout()
    layout.write(tmp_path / "a.tar")
    layout.entries["tonnage-signature.json"] = change(layout.entries["index.json"])

    said = refused(layout.write(tmp_path / "a.tar"))

    assert "cannot be read" in said or "changed or damaged" in said


def test_a_signature_of_the_bare_index_is_none() -> None:
    """The same key signs requests to other registries, whose text others choose in part."""
    index = b'{"schemaVersion":2,"manifests":[]}'
    bare = {"key": KEY.public.line, "signature": b64encode(KEY.sign(index)).decode()}

    with pytest.raises(ArchiveInvalid, match="changed or damaged"):
        signer_of(json.dumps(bare).encode(), index)
