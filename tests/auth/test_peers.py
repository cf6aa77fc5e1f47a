from __future__ import annotations

import socket

import pytest

from auth.errors import SettingInvalid
from auth.hosts import host_of, is_own_host
from auth.peers import (
    AccessConfig,
    external_scheme_and_host,
    is_addressed_to_us,
    is_loopback_peer,
    request_target,
    signed_origins,
)

LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:11434", "wsgi.url_scheme": "http"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:11434", "LOCALHOST", "a.localhost", "127.0.0.1:1", "[::1]:11434", "localhost."]
)
def test_a_program_on_this_machine_is_a_loopback_peer(address, host):
    assert is_loopback_peer({**LOCAL, "REMOTE_ADDR": address, "HTTP_HOST": host})


@pytest.mark.parametrize(
    "header",
    [
        "FORWARDED",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PROTO",
        "X_FORWARDED_SERVER",
        "X_FORWARDED",
        "VIA",
        "X_REAL_IP",
    ],
)
def test_a_proxy_on_this_machine_does_not_open_the_door(header):
    assert not is_loopback_peer({**LOCAL, f"HTTP_{header}": ""})


@pytest.mark.parametrize(
    "change",
    [
        {"REMOTE_ADDR": "10.0.0.1"},
        {"REMOTE_ADDR": "128.0.0.1"},
        {"REMOTE_ADDR": "::2"},
        {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "localhost"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": "rebound.example.com"},
        {"HTTP_HOST": "localhost.example.com"},
        {"HTTP_HOST": "127.0.0.1.nip.io"},
        {"HTTP_HOST": "0.0.0.0"},
        {"HTTP_HOST": "192.168.1.2:11434"},
        {"HTTP_HOST": "localhost:11434\n"},
        {"HTTP_HOST": "localhost,example.com"},
        {"HTTP_HOST": "user@localhost"},
    ],
)
def test_others_are_no_loopback_peers(change):
    assert not is_loopback_peer({**LOCAL, **change})


def test_a_peer_named_as_a_proxy_is_never_one_of_ours():
    config = AccessConfig(trusted_proxies=("127.0.0.1",))

    assert not is_loopback_peer(LOCAL, config.proxies)


PROXIED = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "models.example.com"}


@pytest.mark.parametrize(
    ("environ", "settings", "expected"),
    [
        ({}, {}, "http://localhost:11434"),
        ({"HTTP_HOST": "127.0.0.1:11434"}, {}, "http://127.0.0.1:11434"),
        ({"wsgi.url_scheme": "https", "HTTP_HOST": "h:443"}, {}, "https://h:443"),
        (PROXIED, {}, "http://localhost:11434"),
        (PROXIED, {"trusted_proxies": ("10.0.0.0/8",)}, "http://localhost:11434"),
        (PROXIED, {"trusted_proxies": ("127.0.0.1",)}, "https://models.example.com"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, {"trusted_proxies": ("127.0.0.0/8",)}, "https://localhost:11434"),
        (
            {"HTTP_X_FORWARDED_PROTO": "gopher, https", "HTTP_X_FORWARDED_HOST": "forged.example.com, h:1"},
            {"trusted_proxies": ("127.0.0.1",)},
            "https://h:1",
        ),
        ({"HTTP_X_FORWARDED_PROTO": "javascript"}, {"trusted_proxies": ("127.0.0.1",)}, "http://localhost:11434"),
        ({"HTTP_HOST": "r.example.com"}, {"external_url": "https://r.example.com"}, "https://r.example.com"),
        ({"HTTP_HOST": "inside:11434"}, {"external_url": "https://r.example.com"}, "http://inside:11434"),
        ({"HTTP_HOST": 'x"y'}, {"external_url": "https://r.example.com"}, "https://r.example.com"),
        ({"HTTP_HOST": 'x"y'}, {}, "http://localhost"),
    ],
)
def test_our_address_is_the_one_the_client_used(environ, settings, expected):
    scheme, host = external_scheme_and_host({**LOCAL, **environ}, AccessConfig(**settings))

    assert f"{scheme}://{host}" == expected


def test_a_hidden_scheme_is_tried_in_order():
    config = AccessConfig(external_url="https://r.example.com")

    assert signed_origins({**LOCAL, "HTTP_HOST": "r.example.com"}, config) == (
        "https://r.example.com",
        "http://r.example.com",
    )
    assert signed_origins(LOCAL, AccessConfig()) == ("http://localhost:11434", "https://localhost:11434")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost:11434", True),
        ("localhost:11435", False),
        ("127.0.0.1:11434", True),
        ("127.0.0.1", False),
        ("r.example.com:8443", False),
        ("R.EXAMPLE.COM", True),
        (f"{socket.gethostname()}:11434", True),
        (f"{socket.gethostname()}.local:11434", True),
        ("stranger.example.com", False),
        (f"{socket.gethostname()}.example.com", False),
        ("203.0.113.7", False),
        ("0.0.0.0", False),
        ("[2001:db8::1]", False),
    ],
)
def test_a_signature_for_another_host_can_be_told(host, is_ours):
    config = AccessConfig(external_url="https://r.example.com")

    assert is_addressed_to_us({**LOCAL, "SERVER_PORT": "11434", "HTTP_HOST": host}, config) is is_ours


def test_an_address_of_this_machine_is_ours():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be used
        except OSError:
            pytest.skip("no network here")
        assert is_own_host(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({"RAW_URI": "/v2/token?scope=a%2Cb"}, "/v2/token?scope=a%2Cb"),
        ({"REQUEST_URI": "/v2/token?a=%2c"}, "/v2/token?a=%2c"),
        ({"RAW_URI": "http://h/v2/token", "PATH_INFO": "/v2/token", "QUERY_STRING": "a=1"}, "/v2/token?a=1"),
        ({"PATH_INFO": "/api/blobs/sha256:x", "QUERY_STRING": ""}, "/api/blobs/sha256:x"),
    ],
)
def test_the_target_is_what_came(environ, target):
    assert request_target(environ) == target


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "closed"},
        {"trusted_proxies": ("proxy.example.com",)},
        {"trusted_proxies": ("10.0.0.0/33",)},
        {"external_url": "registry.example.com"},
        {"external_url": "ftp://registry.example.com"},
        {"external_url": 'https://x"y'},
    ],
)
def test_a_wrong_setting_stops_the_start(settings):
    with pytest.raises(SettingInvalid):
        AccessConfig(**settings)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("H:1", "h"),
        ("[::1]:80", "::1"),
        ("", None),
        ("a b", None),
        ("h:x", None),
        ("h:1:2", None),
        ("-h", None),
        ("h\n", None),
    ],
)
def test_the_host_of_an_authority(authority, host):
    assert host_of(authority) == host
