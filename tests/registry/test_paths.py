import pytest

from registry.paths import Kind, RepositoryPath, split_path

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"a/b/blobs/{D}", RepositoryPath(Kind.BLOB, "a/b", D)),
        ("a/manifests/v1", RepositoryPath(Kind.MANIFEST, "a", "v1")),
        ("a/blobs/uploads/", RepositoryPath(Kind.UPLOAD_START, "a")),
        ("a/blobs/uploads", RepositoryPath(Kind.UPLOAD_START, "a")),
        ("a/b/blobs/uploads/0f-1", RepositoryPath(Kind.UPLOAD, "a/b", "0f-1")),
        ("a/tags/list", RepositoryPath(Kind.TAGS, "a")),
        (f"a/referrers/{D}", RepositoryPath(Kind.REFERRERS, "a", D)),
        (f"a/b/chunksums/{D}", RepositoryPath(Kind.CHUNK_SUMS, "a/b", D)),
        ("a/blobs/uploads/manifests/x", RepositoryPath(Kind.MANIFEST, "a/blobs/uploads", "x")),
        ("a/manifests/blobs/uploads/", RepositoryPath(Kind.UPLOAD_START, "a/manifests")),
        ("tags/list/tags/list", RepositoryPath(Kind.TAGS, "tags/list")),
        ("blobs/manifests/manifests", RepositoryPath(Kind.MANIFEST, "blobs", "manifests")),
        ("manifests/tags/list/referrers/x", RepositoryPath(Kind.REFERRERS, "manifests/tags/list", "x")),
        ("", None),
        ("a", None),
        ("a/b", None),
        ("tags/list", None),
        ("manifests/x", None),
        ("/blobs/uploads/", RepositoryPath(Kind.UPLOAD_START, "")),
        ("a//manifests/x", RepositoryPath(Kind.MANIFEST, "a/", "x")),
        ("a/manifests/", None),
        ("a/unknown/x", None),
    ],
)
def test_a_path_is_read_from_its_right_end(path, expected):
    assert split_path(path) == expected
