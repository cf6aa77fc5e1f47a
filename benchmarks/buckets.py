"""An S3 server, and servers of ours and of others that share them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from load import LoadError
from peers import ROOT, Server, free_address, ours, peer

BUCKET: Final = "weights"
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "only-for-this-run",
    "AWS_REGION": "us-east-1",
}
_START_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a versitygw, which keeps objects as files. It logs each request, if it was told to."""

    address: tuple[str, int]
    folder: Path
    log: Path
    process: Server

    @property
    def endpoint(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def client(self) -> Any:
        path = {"addressing_style": "path"}
        config = Config(signature_version="s3v4", s3=path, request_checksum_calculation="when_required")
        keys = {
            "aws_access_key_id": _KEYS["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": _KEYS["AWS_SECRET_ACCESS_KEY"],
        }
        session = boto3.session.Session(region_name=_KEYS["AWS_REGION"], **keys)
        return session.client("s3", endpoint_url=self.endpoint, config=config)

    def settings(self, prefix: str, **more: str) -> dict[str, str]:
        """What a server of ours is told."""
        told = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": self.endpoint}
        no_redirect = {"TONNAGE_S3_REDIRECT": "never"}
        return {
            **_KEYS,
            "AWS_EC2_METADATA_DISABLED": "true",
            **told,
            "TONNAGE_S3_PREFIX": prefix,
            **no_redirect,
            **more,
        }


@contextmanager
def bucket(binary: Path, folder: Path, *, logs: bool = False) -> Iterator[Bucket]:
    """The server with an empty bucket, while it runs."""
    address, kept, log = free_address(), folder / "buckets", folder / "requests"
    described = folder / "described"
    kept.mkdir(parents=True)
    described.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "ROOT_ACCESS_KEY": _KEYS["AWS_ACCESS_KEY_ID"]}
    environ["ROOT_SECRET_KEY"] = _KEYS["AWS_SECRET_ACCESS_KEY"]
    options = ["--port", f"{address[0]}:{address[1]}", "--keep-alive", "--quiet"]
    options += ["--access-log", str(log)] if logs else []
    with (folder / "log").open("wb") as output:
        # attributes of files, where it would keep the list of parts, have room for some hundreds of them
        command = [str(binary), *options, "posix", "--sidecar", str(described), str(kept)]
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=output, stderr=output)
    try:
        found = Bucket(address, kept / BUCKET, log, Server("versitygw", address, process.pid, (kept,)))
        _create(found, process)
        yield found
    finally:
        process.terminate()
        process.wait()


def _create(found: Bucket, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            found.client().create_bucket(Bucket=BUCKET)
            return
        except Exception as error:  # it does not listen yet
            if process.poll() is not None or time.monotonic() > deadline:
                raise LoadError(f"the S3 server does not serve: {error}") from error
            time.sleep(0.1)


@contextmanager
def nodes(folder: Path, settings: Mapping[str, str], count: int) -> Iterator[tuple[Server, ...]]:
    """So many servers of ours with the same settings."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(ours(folder / f"node-{number}", settings)) for number in range(count))


@contextmanager
def peer_on(found: Bucket, binary: Path, folder: Path, *, redirects: bool) -> Iterator[Server]:
    """A registry of the CNCF distribution project, 2.8 or 3, over its own S3 driver and the same bucket."""
    told = {
        "accesskey": _KEYS["AWS_ACCESS_KEY_ID"],
        "secretkey": _KEYS["AWS_SECRET_ACCESS_KEY"],
        "region": _KEYS["AWS_REGION"],
        "regionendpoint": found.endpoint,
        "bucket": BUCKET,
        "rootdirectory": f"/{folder.name}",
        "secure": "false",
        "v4auth": "true",
        "forcepathstyle": "true",
    }
    driver = ", ".join(f"{key}: {value}" for key, value in told.items())
    disabled = "false" if redirects else "true"
    with peer(binary, folder, storage=f"s3: {{{driver}}}, redirect: {{disable: {disabled}}}") as server:
        yield server
