"""Token requests that fail again and again, from an address that is not this machine's own."""

from __future__ import annotations

from tests.client import Client

FAR = {"X-Forwarded-For": "203.0.113.77"}  # an untrusted word, but one that no program of this machine would say
WRONG = "tng_" + "a" * 12 + "_" + "b" * 43


def test_an_address_that_keeps_failing_is_told_to_wait_and_good_credentials_pass(network):
    wrong, right = Client(network.host, WRONG), Client(network.host, network.secrets["admin"])

    answers = [wrong.request("GET", "/v2/token", headers=FAR) for _ in range(200)]  # more than all workers bear

    statuses = [answer.status for answer in answers]
    assert set(statuses) == {401, 429}
    refused = answers[statuses.index(429)]
    assert refused.code == "TOOMANYREQUESTS"
    assert int(refused.headers["Retry-After"]) >= 1
    assert right.request("GET", "/v2/token", headers=FAR).status == 200
    assert Client(network.host).request("GET", "/v2/token", headers=FAR).status == 200
