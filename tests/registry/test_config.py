import re

import pytest

from registry.config import Config, ConfigInvalid, load_config, parse_duration, parse_size
from storage.drivers.bucket_settings import BucketSettings
from storage.local_copies.copies import CopyLimits


def test_the_defaults_are_the_documented_ones(tmp_path):
    config = load_config({"data": str(tmp_path)}, {})

    assert (config.listen_host, config.listen_port, config.access) == ("127.0.0.1", 11434, "keyed")
    assert config.database_url == f"sqlite:///{tmp_path}/tonnage.db"
    assert config.keep_alive_s == 300


def test_local_copies_have_the_bound_and_the_patience_that_are_set(tmp_path):
    environ = {"TONNAGE_CACHE_BYTES": "2G", "OLLAMA_LOAD_TIMEOUT": "90s", "TONNAGE_THREADS": "10"}

    assert load_config({"data": str(tmp_path)}, environ).copy_limits == CopyLimits(2 * 2**30, 90.0, 5)


def test_flags_win_over_the_environment(tmp_path):
    environ = {"TONNAGE_LISTEN": "127.0.0.1:1", "TONNAGE_DATA": "/elsewhere"}

    config = load_config({"listen": "[::1]:2", "data": str(tmp_path), "workers": None}, environ)

    assert (config.listen_host, config.listen_port, config.data) == ("::1", 2, str(tmp_path))


@pytest.mark.parametrize(
    ("environ", "connections"),
    [
        ({}, 16),
        ({"TONNAGE_THREADS": "256"}, 64),
        ({"TONNAGE_THREADS": "4"}, 4),
        ({"TONNAGE_THREADS": "256", "TONNAGE_DATABASE_CONNECTIONS": "8"}, 8),
    ],
)
def test_four_threads_share_a_connection_unless_told_otherwise(tmp_path, environ, connections):
    assert load_config({"data": str(tmp_path)}, environ).connections == connections


def test_settings_survive_the_way_to_another_process(tmp_path):
    config = load_config({"data": str(tmp_path)}, {"OLLAMA_ORIGINS": "https://a.example,*"})

    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("TONNAGE_LISTEN", "nowhere", "host:port"),
        ("TONNAGE_LISTEN", "127.0.0.1:70000", "host:port"),
        ("TONNAGE_NODE", "one two", "letters"),
        ("TONNAGE_NODE", "a" * 64, "63"),
        ("TONNAGE_ACCESS", "closed", "keyed, open"),
        ("TONNAGE_WORKERS", "0", "from 1"),
        ("TONNAGE_DATABASE_CONNECTIONS", "1025", "to 1024"),
        ("TONNAGE_WORKERS", "two", "whole number"),
        ("TONNAGE_MEMORY_BUDGET", "lots", "size"),
        ("TONNAGE_CACHE_BYTES", "most", "size"),
        ("TONNAGE_STORAGE", "tape", "filesystem, s3"),
        ("TONNAGE_S3_REDIRECT", "perhaps", "auto, always, never"),
        ("TONNAGE_S3_REDIRECT_SIZE", "large", "size"),
        ("TONNAGE_EXTERNAL_URL", "example.org", "http"),
        ("TONNAGE_UPSTREAM", "ftp://h", "host:port"),
        ("TONNAGE_UPSTREAM", "https://h/path", "host:port"),
        ("TONNAGE_ALLOWED_HOSTS", "a.example, 127.1", "host:port"),
        ("TONNAGE_REMOTE_TOKENS", "a.example", "SERVER=FILE"),
        ("TONNAGE_REMOTE_TOKENS", "a b=/token", "SERVER=FILE"),
        ("OLLAMA_KEEP_ALIVE", "5 minutes", "duration"),
        ("OLLAMA_KV_CACHE_TYPE", "f64", "q8_0"),
        ("OLLAMA_NUM_PARALLEL", "-1", "whole number"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_takes(tmp_path, name, value, word):
    with pytest.raises(ConfigInvalid, match=name) as caught:
        load_config({"data": str(tmp_path)}, {name: value})

    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("TONNAGE_S3_BUCKET", "", "name the bucket"),
        ("TONNAGE_S3_BUCKET", "s3://weights", "name the bucket"),
        ("TONNAGE_S3_PREFIX", "a//b", "slashes"),
        ("TONNAGE_S3_PREFIX", "../b", "slashes"),
        ("TONNAGE_S3_ENDPOINT", "localhost:9000", "http"),
        ("TONNAGE_S3_ENDPOINT", "http://user@host", "http"),
        ("TONNAGE_S3_PUBLIC_ENDPOINT", "store.example", "http"),
    ],
)
def test_a_bucket_that_cannot_be_is_named_with_what_is_wrong(tmp_path, name, value, word):
    environ = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": "weights", name: value}

    with pytest.raises(ConfigInvalid, match=name) as caught:
        load_config({"data": str(tmp_path)}, environ)

    assert word in str(caught.value)


def test_bytes_are_kept_in_a_bucket_where_that_is_asked_for(tmp_path):
    environ = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": "weights", "TONNAGE_S3_PREFIX": "/a/b"}

    config = load_config({"data": str(tmp_path)}, environ | {"TONNAGE_S3_ENDPOINT": "http://localhost:9000/"})

    assert config.bucket == BucketSettings("weights", "a/b/", "http://localhost:9000")
    assert load_config({"data": str(tmp_path)}, {"TONNAGE_S3_BUCKET": "weights"}).bucket is None


@pytest.mark.parametrize(
    ("mode", "endpoint", "public", "may_go"),
    [
        ("auto", "", "", True),
        ("auto", "http://store:9000", "", False),  # a name that clients may not know
        ("auto", "http://store:9000", "https://store.example/", True),
        ("always", "http://store:9000", "", True),
        ("never", "", "https://store.example", False),
    ],
)
def test_clients_go_to_the_bucket_where_they_can_reach_it(tmp_path, mode, endpoint, public, may_go):
    environ = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": "weights", "TONNAGE_S3_REDIRECT": mode}

    endpoints = {"TONNAGE_S3_ENDPOINT": endpoint, "TONNAGE_S3_PUBLIC_ENDPOINT": public}
    bucket = load_config({"data": str(tmp_path)}, environ | endpoints).bucket

    assert bucket == BucketSettings("weights", "", endpoint, public.rstrip("/"), may_go)


def test_a_server_is_called_as_it_is_told_or_as_its_machine(tmp_path):
    assert load_config({"data": str(tmp_path)}, {"TONNAGE_NODE": "rack-2.b"}).node == "rack-2.b"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,63}", load_config({"data": str(tmp_path)}, {}).node)


def test_open_access_on_the_network_needs_a_word_more(tmp_path):
    flags = {"data": str(tmp_path), "listen": "0.0.0.0:5000", "access": "open"}

    with pytest.raises(ConfigInvalid, match="--i-know"):
        load_config(flags, {})

    assert load_config({**flags, "i_know": True}, {}).access == "open"


def test_a_long_data_path_gets_a_short_folder_for_sockets(tmp_path):
    config = load_config({"data": str(tmp_path / ("x" * 120))}, {})

    assert len(str(config.run_path)) < 80


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("300", 300), ("0", 0), ("-1", -1), ("-5m", -1), ("1.5s", 1.5), ("250ms", 0.25)],
)
def test_durations(text, seconds):
    assert parse_duration("X", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512M", 2**29), ("1.5G", 3 * 2**29), ("8GiB", 2**33), ("10k", 10240)]
)
def test_sizes(text, size):
    assert parse_size("X", text) == size
