"""Where a stranger's request may make the server connect to, and how a host may be spelt."""

import socket

import pytest

from registry.remotes import connections
from registry.remotes.errors import RedirectRefused, RemoteError, Unreachable, UrlInvalid
from registry.remotes.hosts import NamedHost, parse_host
from registry.remotes.http import Origin, Outbound
from registry.remotes.reach import AddressRefused, Reach, is_public
from registry.remotes.retry import Retry
from tests.faulty_registry import Fault, faulty_registry


def resolver(**known):
    """A name server that knows these names, by their first label, and notes what it is asked."""
    asked = []

    def resolve(host, port):
        asked.append((host, port))
        if host.split(".")[0] in known:
            return known[host.split(".")[0]]
        return [host] if host[0].isdigit() or ":" in host else _unknown(host)

    resolve.asked = asked
    return resolve


def _unknown(host):
    raise socket.gaierror(f"no {host}")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Registry.Example", "registry.example"),
        ("hf.co", "hf.co"),
        ("my_host", "my_host"),
        ("192.168.0.1", "192.168.0.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_has_one_spelling(text, host):
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "localhost.", "example.com.", ".example.com", "a..b", "-a.example", "a" * 64, "a." * 127 + "abc",
        "2130706433", "017700000001", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.01", "0",
        "1.2.3.4.5", "256.1.1.1", "127.0.0.1.", "example.0x7f", "example.1", "0x", "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "localhost%00.example", "a b", "a/b", "a\\b", "a@b", "a#b", "a?b", "[::1]", "::1%eth0", "fe80::1%25eth0",
        "::ffff:127.0.0.1.", "1::2::3", "localhost\n", "ⓛocalhost", "example.com\x00", "127.0.0.1:80",
    ],
)  # fmt: skip
def test_what_others_might_read_as_another_host_is_none(text):
    with pytest.raises(UrlInvalid):
        parse_host(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example@127.0.0.1/", "http://127.0.0.1:80@good.example/", "http://good.example\\@127.0.0.1/",
        "http://127.0.0.1\\.good.example/", "http://good.example%2f@127.0.0.1/", "http://127.0.0.1%2f.good.example/",
        "http://127.0.0.1 .good.example/", "http://127.0.0.1\t@good.example/", "http://[::1].good.example/",
        "http://[::ffff:127.0.0.1]@good.example/", "http://127.1/", "http://2130706433/", "http://0x7f000001/",
        "http://0177.0.0.1/", "http://localhost./", "http:///127.0.0.1/", "http:127.0.0.1", "//127.0.0.1/",
        "gopher://127.0.0.1/", "file:///etc/passwd", "http://good.example:80:80/", "http://good.example:-1/",
        "http://good.example:0x50/", "http://①②⑦.⓪.⓪.①/", "http://[::1%25lo]/", "http://@/", "http://:80/",
    ],
)  # fmt: skip
def test_urls_that_two_parsers_would_read_as_two_hosts_are_none(url):
    with pytest.raises(UrlInvalid):
        Origin.of(url)


@pytest.mark.parametrize("url", ["http://a.example#@127.0.0.1/", "http://a.example?@127.0.0.1/", "http://a.example/@b"])
def test_what_follows_the_host_names_none(url):
    assert Origin.of(url) == Origin("http", "a.example", 80)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1",
        "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "168.63.129.16", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254",
        "fe80::5efe:127.0.0.1", "::7f00:1", "100.100.100.200", "192.0.0.192", "2001:0:7f00:1::1",
        "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:10::1", "2001:20::1",
        "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "fc00::1", "fd12:3456::1", "fe80::1",
        "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_for_everybody(address):
    assert not is_public(address)
    with pytest.raises(AddressRefused):
        Reach(resolve=resolver(any=[address])).addresses("any.example", 443)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "9.255.255.255", "100.63.255.255", "172.32.0.1", "223.255.255.255", "2606:4700::1111"]
)
def test_addresses_of_everybody(address):
    assert Reach(resolve=resolver(any=[address])).addresses("any.example", 443) == [address]


def test_one_inner_address_among_public_ones_refuses_the_host():
    reach = Reach(resolve=resolver(mixed=["1.1.1.1", "127.0.0.1"]))

    with pytest.raises(AddressRefused):
        reach.addresses("mixed.example", 443)


@pytest.mark.parametrize(("port", "is_fine"), [(80, True), (443, True), (5000, True), (22, False), (25, False)])
def test_ports_of_other_protocols_are_for_named_hosts_alone(port, is_fine):
    reach = Reach((NamedHost("named.example", port),), resolver(any=["1.1.1.1"], named=["10.0.0.1"]))

    assert reach.addresses("named.example", port) == ["10.0.0.1"]
    if is_fine:
        assert reach.addresses("any.example", port) == ["1.1.1.1"]
    else:
        with pytest.raises(AddressRefused):
            reach.addresses("any.example", port)


def test_inner_hosts_and_those_that_are_not_there_are_refused_in_the_same_words_after_as_many_looks():
    resolve = resolver(inner=["10.0.0.1"], empty=[])
    reach = Reach(resolve=resolve)

    said = []
    for host in ("inner.example", "absent.example", "empty.example"):
        resolve.asked.clear()
        retry = Retry(first_s=0)
        with pytest.raises(RemoteError) as caught:
            look_again_and_again(reach, host, retry)
        said.append((str(caught.value).replace(host, "HOST"), len(resolve.asked)))
    assert len(set(said)) == 1


def look_again_and_again(reach, host, retry):
    while True:
        try:
            reach.addresses(host, 443)
        except RemoteError as error:
            retry.pause(error)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_covered"),
    [
        ("registry.inner", "registry.inner", 443, True),
        ("registry.inner", "registry.inner", 80, True),
        ("registry.inner", "registry.inner", 5000, False),
        ("registry.inner:5000", "registry.inner", 5000, True),
        ("registry.inner:5000", "registry.inner", 443, False),
        ("registry.inner", "x.registry.inner", 443, False),
        ("[::1]:5000", "::1", 5000, True),
        (" 127.0.0.1:5000 ", "127.0.0.1", 5000, True),
    ],
)
def test_a_named_host_is_that_host_and_port(text, host, port, is_covered):
    assert NamedHost.parse(text).covers(host, port) == is_covered


@pytest.mark.parametrize("text", ["", "h:0", "h:65536", "h:x", "h:", "[h]:1", "::1", "http://h", "*", "*.inner", "h/x"])
def test_what_names_no_host(text):
    with pytest.raises(UrlInvalid):
        NamedHost.parse(text)


def test_a_host_that_nobody_named_leads_to_no_named_one():
    reach = Reach((NamedHost("inner.example", 443),), resolver(inner=["10.0.0.1"], stranger=["1.1.1.1"]))

    assert reach.seen_from("inner.example", 443).addresses("inner.example", 443) == ["10.0.0.1"]
    with pytest.raises(AddressRefused):
        reach.seen_from("stranger.example", 443).addresses("inner.example", 443)


def named(registry, resolve, host="registry.test"):
    return Reach((NamedHost(host, Origin.of(registry.url).port),), resolve)


def test_a_connection_goes_to_the_address_that_was_checked():
    with faulty_registry() as registry:
        port = Origin.of(registry.url).port
        resolve = resolver(registry=["127.0.0.1"])
        http = Outbound(connect_s=2, read_s=2, reach=named(registry, resolve))

        with http.request("GET", f"http://registry.test:{port}/v2/a/m/manifests/v1") as reply:
            assert reply.status == 404

        assert resolve.asked == [("registry.test", port)]
        assert registry.requests[0].headers["Host"] == f"registry.test:{port}"


def test_a_name_that_moves_inside_after_a_first_look_is_looked_at_again_for_each_connection(monkeypatch):
    answers, tried = iter([["1.1.1.1"], ["127.0.0.1"]]), []

    def connect(address, *_, **__):
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(connections, "create_connection", connect)
    http = Outbound(connect_s=2, reach=Reach((), lambda host, port: next(answers)))

    with pytest.raises(Unreachable):
        http.request("GET", "http://moving.test/")
    with pytest.raises(AddressRefused):
        http.request("GET", "http://moving.test/")

    assert tried == [("1.1.1.1", 80)]  # what was checked, and no other


@pytest.mark.parametrize(
    "location",
    [
        "http://inner.test:{}/x", "http://127.0.0.1:{}/x", "//inner.test:{}/x", "http://localhost:{}/x",
        "http://0.0.0.0:{}/x", "http://[::1]:{}/x", "http://[::ffff:127.0.0.1]:{}/x", "http://[::ffff:7f00:1]:{}/x",
        "http://[64:ff9b::7f00:1]:{}/x", "http://[2002:7f00:1::]:{}/x", "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/",
        "http://metadata.test/computeMetadata/v1/", "https://127.0.0.1:{}/x",
    ],
)  # fmt: skip
def test_every_hop_is_checked(location):
    with faulty_registry() as registry, faulty_registry() as inner:
        port, inner_port = (Origin.of(each.url).port for each in (registry, inner))
        registry.faults.append(Fault("GET", "/start", status=302, headers={"Location": location.format(inner_port)}))
        known = {"inner": ["127.0.0.1"], "localhost": ["127.0.0.1"], "metadata": ["169.254.169.254"]}
        reach = named(registry, resolver(registry=["127.0.0.1"], **known))

        with pytest.raises(AddressRefused):
            Outbound(connect_s=2, reach=reach).request("GET", f"http://registry.test:{port}/start")

        assert inner.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "http://2130706433:{}/x", "http://017700000001:{}/x", "http://0x7f000001:{}/x", "http://0177.0.0.1:{}/x",
        "http://0x7f.0.0.1:{}/x", "http://127.1:{}/x", "http://0:{}/x", "http://localhost.:{}/x",
        "http://[fe80::1%25lo]:{}/x", "http://[::1%lo]:{}/x", "http://registry.test@127.0.0.1:{}/x", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_hop_to_what_others_might_read_as_another_host_is_none(location):
    with faulty_registry() as registry, faulty_registry() as inner:
        port, inner_port = (Origin.of(each.url).port for each in (registry, inner))
        registry.faults.append(Fault("GET", "/start", status=302, headers={"Location": location.format(inner_port)}))
        resolve = resolver(registry=["127.0.0.1"])

        with pytest.raises(RedirectRefused):
            Outbound(connect_s=2, reach=named(registry, resolve)).request("GET", f"http://registry.test:{port}/start")

        assert inner.requests == []
        assert {host for host, _ in resolve.asked} == {"registry.test"}


def test_an_address_that_does_not_answer_leaves_the_next_to_be_tried():
    with faulty_registry() as registry:
        port = Origin.of(registry.url).port
        reach = named(registry, resolver(registry=["::1", "127.0.0.1"]))

        with Outbound(connect_s=2, reach=reach).request("GET", f"http://registry.test:{port}/") as reply:
            assert reply.status == 404


def test_nobody_at_any_address_is_one_clear_line():
    reach = Reach((NamedHost("registry.test", 1),), resolver(registry=["127.0.0.1"]))

    with pytest.raises(Unreachable, match=r"cannot connect to http://registry.test:1;"):
        Outbound(connect_s=1, reach=reach).request("GET", "http://registry.test:1/")
