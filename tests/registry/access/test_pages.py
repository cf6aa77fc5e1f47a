"""Pages in a browser: by a name that somebody points at us, or of another origin, they reach nothing."""

from __future__ import annotations

import pytest

from tests.registry.access.world import PRIVATE, Wire


@pytest.mark.parametrize("path", ["/api/tags", "/api/show", "/v2/vault/model/manifests/v1", "/v2/token", "/healthz"])
@pytest.mark.parametrize("host", ["registry.example.com", "127.0.0.1.nip.io", "localhost.example.com", "8.8.8.8", "1"])
def test_a_name_that_somebody_points_at_us_is_refused(loopback, path, host):
    """With the administrator's token even: a page that was opened by such a name must get nothing."""
    headers = {"Host": host, "Authorization": f"Bearer {loopback.secrets['admin']}"}

    assert Wire(loopback.host).send("GET" if path != "/api/show" else "POST", path, headers, b"").status == 403


@pytest.mark.parametrize("place", ["network", "loopback"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost.evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://[::1",
        "",
    ],
)
def test_a_page_of_another_origin_may_not_call(request, place, origin):
    world = request.getfixturevalue(place)
    before = world.state()
    headers = {"Origin": origin, "Authorization": f"Bearer {world.secrets['admin']}"}
    for method, path in (
        ("GET", "/api/tags"), ("POST", "/api/generate"), ("DELETE", "/api/delete"), ("OPTIONS", "/api/delete"),
        ("GET", "/v2/_catalog"), ("POST", f"/v2/{PRIVATE}/blobs/uploads/"), ("DELETE", f"/v2/{PRIVATE}/manifests/v1"),
        ("GET", "/v2/token"),
    ):  # fmt: skip
        answer = Wire(world.host).send(method, path, headers)

        assert answer.status == 403, (method, path, answer.status)
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert world.state() == before
