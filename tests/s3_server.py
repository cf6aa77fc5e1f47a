"""A real S3 server on a free loopback port, over a folder of its own: versitygw, which keeps objects as files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from tests.waiting import wait_for

COMMAND = os.environ.get("TONNAGE_TEST_S3_SERVER") or "versitygw"
BUCKET = "weights"
KEYS = {"AWS_ACCESS_KEY_ID": "tonnage", "AWS_SECRET_ACCESS_KEY": "only-for-tests", "AWS_REGION": "us-east-1"}
_ABOUT_AWS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": ""}


@dataclass(frozen=True, slots=True)
class S3Server:
    """endpoint: its URL. environ: what a process needs to be let in."""

    endpoint: str
    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: {**KEYS, **_ABOUT_AWS})


@contextmanager
def s3_server(folder: Path, *, command: str = COMMAND) -> Iterator[S3Server]:
    """The server while it runs, with one bucket; this process is let in.

    Where it is not installed the test is skipped; in CI, or where one is named that is not there, it fails.
    """
    if not shutil.which(command):
        is_named = "TONNAGE_TEST_S3_SERVER" in os.environ
        assert not is_named, f"TONNAGE_TEST_S3_SERVER names no command: {command}"
        assert "CI" not in os.environ, "CI must name versitygw's path in TONNAGE_TEST_S3_SERVER, or install it"
        pytest.skip("no S3 server: TONNAGE_TEST_S3_SERVER names none, and versitygw is not installed")
    buckets, log_path = folder / "buckets", folder / "log"
    buckets.mkdir(parents=True)
    address = _free_address()
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"]}
    environ["ROOT_SECRET_KEY"] = KEYS["AWS_SECRET_ACCESS_KEY"]
    whole = [command, "--port", f"{address[0]}:{address[1]}", "--quiet", "posix", str(buckets)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(whole, env=environ, stdout=log, stderr=log)
    server = S3Server(f"http://{address[0]}:{address[1]}", folder)
    patch = pytest.MonkeyPatch()
    try:
        wait_for(lambda: process.poll() is not None or _listens(address), 20, f"{command} to listen")
        assert process.poll() is None, log_path.read_text("utf-8", "replace")
        for name, value in server.environ.items():
            patch.setenv(name, value)
        boto3.session.Session().client("s3", endpoint_url=server.endpoint).create_bucket(Bucket=BUCKET)
        yield server
    finally:
        patch.undo()
        process.terminate()
        process.wait(10)


def _free_address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    return str(host), int(port)


def _listens(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False
