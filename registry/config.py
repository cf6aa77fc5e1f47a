"""Settings: the only reader of the environment. A wrong value stops the start with one line."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

from registry.remotes.errors import UrlInvalid
from registry.remotes.rate import LEAST_RATE
from registry.remotes.settings import ClientSettings, RemoteSettings
from storage.drivers.bucket_settings import BucketSettings
from storage.local_copies.copies import CopyLimits
from storage.reference import DEFAULT_HOST

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_GO_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SOCKET_PATH_MAX = 100  # sun_path has 108 bytes on Linux, 104 elsewhere
FOREVER_S = -1.0
_ALIVE_RATE = 1024  # bytes a second; a stream below is given up, here and by servers such as this one
_DEVICE_NAMES = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL", "HSA_OVERRIDE_GFX_VERSION",
)  # fmt: skip

GRACE_S = 10  # what streams get to end in when the server is told to stop


class ConfigInvalid(Exception):
    """A setting has a value that makes no sense; the message names the setting and what it takes."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything `serve` can be told. Sizes in bytes, durations in seconds, 0 leaves the choice to the server."""

    data: str
    node: str = "tonnage"  # what this server is called among those that share its database
    listen_host: str = "127.0.0.1"
    listen_port: int = 11434
    database_url: str = ""
    database_connections: int = 0  # of one web process; 0: as many as its threads need
    storage: str = "filesystem"
    s3_bucket: str = ""
    s3_prefix: str = ""  # within the bucket; ends with a slash, if there is one
    s3_endpoint: str = ""  # of servers other than AWS
    s3_public_endpoint: str = ""  # where clients reach it, if that is elsewhere
    s3_redirect: str = "auto"  # downloads to the bucket; auto: clients that are known to reach it, and to cope
    s3_redirect_bytes: int = 16 * 2**20  # smaller ones come from here
    s3_direct_upload: bool = False  # parts that ollama clients send go to the bucket
    cache_bytes: int = 0  # local copies of what lies in the bucket; 0: nine tenths of what the disk has free
    external_url: str = ""
    access: str = "keyed"
    allow_sparse: bool = False
    trusted_proxies: tuple[str, ...] = ()
    upstream: str = DEFAULT_HOST
    allowed_hosts: tuple[str, ...] = ()  # host[:port] that pulls and pushes may reach wherever they lie
    remote_tokens: tuple[str, ...] = ()  # SERVER=FILE
    limit_rate_down: int = 0  # bytes a second from other servers, all processes together; 0 is no limit
    limit_rate_up: int = 0  # and to them
    mirror_high_bytes: int = 0  # of mirrored blobs: above, the least recently pulled go; 0 is no bound
    mirror_low_bytes: int = 0  # until so much is left
    workers: int = 2
    threads: int = 64
    memory_budget_bytes: int = 0
    keep_alive_s: float = 300.0
    context_length: int = 0
    num_parallel: int = 0
    max_loaded_models: int = 0
    max_queue: int = 512
    load_timeout_s: float = 300.0
    kv_cache_type: str = "f16"
    flash_attention: str = "auto"
    go_templates: bool | None = None  # None: each model's more capable template is used
    origins: tuple[str, ...] = ()
    log_level: str = "info"
    devices: tuple[str, ...] = ()  # NAME=value, of the environment that chooses accelerators

    @property
    def data_path(self) -> Path:
        return Path(self.data)

    @property
    def bucket(self) -> BucketSettings | None:
        """Where the bytes are, unless they are files below `data`."""
        if self.storage != "s3":
            return None
        # an endpoint of our own may be a name that clients do not know, until somebody says how they reach it
        is_reachable = self.s3_redirect == "always" or bool(self.s3_public_endpoint) or not self.s3_endpoint
        gives = self.s3_redirect != "never" and is_reachable
        return BucketSettings(self.s3_bucket, self.s3_prefix, self.s3_endpoint, self.s3_public_endpoint, gives)

    @property
    def keys_path(self) -> Path:
        return self.data_path / "keys"

    @property
    def remotes(self) -> RemoteSettings:
        """How one process goes out. Raises UrlInvalid.

        A quarter of a web process's threads may be busy with that. Each process gets its share of the limits and no
        more, whatever the others do: processes that lent to each other would have to ask first.
        """
        rates = (self.limit_rate_down // self.outbound_processes, self.limit_rate_up // self.outbound_processes)
        return RemoteSettings.of(
            self.upstream, self.allowed_hosts, self.remote_tokens, self.keys_path, self.transfers, rates=rates
        )

    @property
    def outbound_processes(self) -> int:
        """The web processes, and the one that syncs mirrors."""
        return self.workers + 1

    @property
    def connections(self) -> int:
        """To the database, of one web process. Transactions are short and none is held while bytes stream, so four
        threads share one; what comes beyond them waits its turn.
        """
        return self.database_connections or max(4, self.threads // 4)

    @property
    def transfers(self) -> int:
        """Pulls and pushes at once in a web process."""
        return max(1, self.threads // 4)

    @property
    def copy_limits(self) -> CopyLimits:
        """Of a node's local copies. Half of a web process's threads may wait for weights to come."""
        return CopyLimits(self.cache_bytes, self.load_timeout_s, max(1, self.threads // 2))

    @property
    def is_loopback(self) -> bool:
        return is_loopback_host(self.listen_host)

    @property
    def run_path(self) -> Path:
        """The folder of the sockets; a short one elsewhere when the data folder's path is too long for a socket."""
        run = self.data_path / "run"
        if len(os.fsencode(run)) + len("/runner-00000000.sock") <= _SOCKET_PATH_MAX:
            return run
        name = sha256(os.fsencode(run)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tonnage-{os.getuid()}-{name}"

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> Config:
        """The inverse of `to_json`, for the web process, which gets its settings from its parent."""
        given = {f.name: body[f.name] for f in fields(cls) if f.name in body}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**values)  # type: ignore[arg-type]  # written by to_json


def is_loopback_host(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def default_data() -> Path:
    """Where data lies when nobody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "share") / "tonnage"


def load_config(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Settings from `flags` (of `serve`, None where not given), else the environment, else the defaults.

    Raises ConfigInvalid, naming the setting.
    """
    env = os.environ if environ is None else environ
    given = {key: str(value) for key, value in (flags or {}).items() if value is not None}

    def text(key: str, default: str = "", *, fallback: str = "") -> str:
        value = given.get(key) or env.get(f"TONNAGE_{key.upper()}") or (env.get(fallback) if fallback else "") or ""
        return value.strip().strip("\"'") or default

    data = Path(text("data") or str(default_data())).expanduser().absolute()
    host, port = parse_listen(text("listen", "127.0.0.1:11434"))
    high, low = _watermarks(text("mirror_high", "0"), text("mirror_low", "0"))
    config = Config(
        data=str(data),
        node=_node(text("node")),
        listen_host=host,
        listen_port=port,
        database_url=text("database_url", f"sqlite:///{data / 'tonnage.db'}"),
        database_connections=_count("TONNAGE_DATABASE_CONNECTIONS", text("database_connections", "0"), most=1024),
        storage=_choice("TONNAGE_STORAGE", text("storage", "filesystem"), ("filesystem", "s3")),
        s3_bucket=text("s3_bucket"),
        s3_prefix=f"{prefix}/" if (prefix := text("s3_prefix").strip("/")) else "",
        s3_endpoint=text("s3_endpoint").rstrip("/"),
        s3_public_endpoint=text("s3_public_endpoint").rstrip("/"),
        s3_redirect=_choice("TONNAGE_S3_REDIRECT", text("s3_redirect", "auto"), ("auto", "always", "never")),
        s3_redirect_bytes=parse_size("TONNAGE_S3_REDIRECT_SIZE", text("s3_redirect_size", "16M")),
        s3_direct_upload=_boolean(text("s3_direct_upload", "false")),
        cache_bytes=parse_size("TONNAGE_CACHE_BYTES", text("cache_bytes", "0")),
        external_url=text("external_url").rstrip("/"),
        access=_choice("TONNAGE_ACCESS", text("access", "keyed"), ("keyed", "open")),
        allow_sparse=_boolean(text("allow_sparse", "false")),
        trusted_proxies=_list(text("trusted_proxies")),
        upstream=text("upstream", DEFAULT_HOST),
        allowed_hosts=_list(text("allowed_hosts")),
        remote_tokens=_list(text("remote_tokens")),
        limit_rate_down=parse_size("TONNAGE_LIMIT_RATE_DOWN", text("limit_rate_down", "0")),
        limit_rate_up=parse_size("TONNAGE_LIMIT_RATE_UP", text("limit_rate_up", "0")),
        mirror_high_bytes=high,
        mirror_low_bytes=low,
        workers=_count("TONNAGE_WORKERS", text("workers", "2"), least=1, most=256),
        threads=_count("TONNAGE_THREADS", text("threads", "64"), least=4, most=1024),
        memory_budget_bytes=parse_size("TONNAGE_MEMORY_BUDGET", text("memory_budget", "0")),
        keep_alive_s=parse_duration("OLLAMA_KEEP_ALIVE", text("keep_alive", "5m", fallback="OLLAMA_KEEP_ALIVE")),
        context_length=_count(
            "OLLAMA_CONTEXT_LENGTH", text("context_length", "0", fallback="OLLAMA_CONTEXT_LENGTH"), most=2**24
        ),
        num_parallel=_count("OLLAMA_NUM_PARALLEL", text("num_parallel", "0", fallback="OLLAMA_NUM_PARALLEL"), most=256),
        max_loaded_models=_count(
            "OLLAMA_MAX_LOADED_MODELS", text("max_loaded_models", "0", fallback="OLLAMA_MAX_LOADED_MODELS"), most=1024
        ),
        max_queue=_count("OLLAMA_MAX_QUEUE", text("max_queue", "512", fallback="OLLAMA_MAX_QUEUE"), most=2**20),
        load_timeout_s=parse_duration(
            "OLLAMA_LOAD_TIMEOUT", text("load_timeout", "5m", fallback="OLLAMA_LOAD_TIMEOUT")
        ),
        kv_cache_type=_choice(
            "OLLAMA_KV_CACHE_TYPE",
            text("kv_cache_type", "f16", fallback="OLLAMA_KV_CACHE_TYPE"),
            ("f16", "q8_0", "q4_0"),
        ),
        flash_attention=_flash(text("flash_attention", "auto", fallback="OLLAMA_FLASH_ATTENTION")),
        go_templates=_boolean_or_none(text("go_template", fallback="OLLAMA_GO_TEMPLATE")),
        origins=_list(text("origins", fallback="OLLAMA_ORIGINS")),
        log_level=_choice("TONNAGE_LOG_LEVEL", text("log_level", "info"), ("debug", "info", "warning", "error")),
        devices=tuple(f"{name}={env[name]}" for name in _DEVICE_NAMES if name in env),
    )
    _check_storage(config.bucket)
    _check_remotes(config)
    _check_rates(config)
    if config.external_url and not re.fullmatch(r"https?://[^/\s\"]+", config.external_url):
        raise ConfigInvalid("TONNAGE_EXTERNAL_URL must be http(s)://host[:port], without a path")
    if config.access == "open" and not config.is_loopback and "i_know" not in given:
        raise ConfigInvalid(
            "TONNAGE_ACCESS=open lets every stranger write; on a listener other than loopback it needs --i-know"
        )
    return config


def _check_storage(bucket: BucketSettings | None) -> None:
    """Raises ConfigInvalid for what names no bucket, or where nothing is installed that talks to it."""
    if bucket is None:
        return
    if not bucket.has_bucket:
        raise ConfigInvalid(f"TONNAGE_S3_BUCKET must name the bucket for TONNAGE_STORAGE=s3, not {bucket.bucket!r}")
    if not bucket.has_prefix:
        raise ConfigInvalid(
            f"TONNAGE_S3_PREFIX must be words of letters, digits, . _ - with slashes, not {bucket.prefix!r}"
        )
    if not bucket.has_endpoint:
        raise ConfigInvalid(f"TONNAGE_S3_ENDPOINT must be http(s)://host[:port], not {bucket.endpoint!r}")
    if not bucket.has_public_endpoint:
        raise ConfigInvalid(f"TONNAGE_S3_PUBLIC_ENDPOINT must be http(s)://host[:port], not {bucket.public_endpoint!r}")
    if importlib.util.find_spec("boto3") is None:
        raise ConfigInvalid("TONNAGE_STORAGE=s3 needs boto3: install tonnage[s3]")


def _check_remotes(config: Config) -> None:
    """Raises ConfigInvalid for what names no host, each setting judged by itself."""
    for name, given in (
        ("TONNAGE_UPSTREAM must be a host, host:port or http://host:port", {"upstream": config.upstream}),
        ("TONNAGE_ALLOWED_HOSTS must be a list of host or host:port", {"allowed_hosts": config.allowed_hosts}),
        ("TONNAGE_REMOTE_TOKENS must be a list of SERVER=FILE", {"remote_tokens": config.remote_tokens}),
    ):
        try:
            _ = Config(data=config.data, **given).remotes
        except UrlInvalid as error:
            raise ConfigInvalid(f"{name}: {error}") from None


def _check_rates(config: Config) -> None:
    """Raises ConfigInvalid for a limit under which transfers would look dead to the servers at their other end."""
    least = config.outbound_processes * max(LEAST_RATE, 2 * _ALIVE_RATE * config.transfers)
    for name, rate in (
        ("TONNAGE_LIMIT_RATE_DOWN", config.limit_rate_down),
        ("TONNAGE_LIMIT_RATE_UP", config.limit_rate_up),
    ):
        if 0 < rate < least:
            raise ConfigInvalid(
                f"{name} must be 0 (no limit) or at least {-(-least // 1024)}K: "
                f"{config.outbound_processes} processes of up to {config.transfers} transfers share it"
            )


def client_settings(environ: Mapping[str, str] | None = None) -> ClientSettings:
    """What client commands take from the environment. Raises ConfigInvalid."""
    env = os.environ if environ is None else environ
    server = (env.get("TONNAGE_SERVER") or "http://127.0.0.1:11434").rstrip("/")
    if not re.fullmatch(r"https?://[^/\s\"@]+", server):
        raise ConfigInvalid(f"TONNAGE_SERVER must be http(s)://host[:port], not {server!r}")
    data = Path(env.get("TONNAGE_DATA") or str(default_data())).expanduser().absolute()
    state = Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tonnage"
    return ClientSettings(server=server, key_path=data / "keys" / "id_ed25519", state_dir=state)


def parse_listen(text: str) -> tuple[str, int]:
    """`host:port`, IPv6 in brackets. Raises ConfigInvalid."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\s\[\]]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ConfigInvalid(f"TONNAGE_LISTEN must be host:port (IPv6 in brackets), not {text!r}")
    return match[1] or match[2] or "0.0.0.0", int(match[3])  # noqa: S104  # ":port" means every address, as asked


def _node(name: str) -> str:
    """The name, or what the machine is called, as far as a header may say it. Raises ConfigInvalid."""
    if not name:
        return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:63] or "tonnage"
    if _NODE.fullmatch(name) is None:
        raise ConfigInvalid(
            f"TONNAGE_NODE must have 1 to 63 letters, digits, dots, dashes or underscores, not {name!r}"
        )
    return name


def _watermarks(high_text: str, low_text: str) -> tuple[int, int]:
    """High and low; the second is nine tenths of the first unless it is said. Raises ConfigInvalid."""
    high = parse_size("TONNAGE_MIRROR_HIGH", high_text)
    low = parse_size("TONNAGE_MIRROR_LOW", low_text) or high * 9 // 10
    if low > high:
        raise ConfigInvalid(
            f"TONNAGE_MIRROR_LOW must be at most TONNAGE_MIRROR_HIGH ({high_text!r}, 0 is no bound), not {low_text!r}"
        )
    return high, low


def parse_size(name: str, text: str) -> int:
    """Bytes: a number with an optional K, M, G or T (powers of 1024). Raises ConfigInvalid."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigInvalid(f"{name} must be a size such as 8G or 512M, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_rate(name: str, text: str) -> int:
    """Bytes a second, as `parse_size` reads them; 0 is no limit. Raises ConfigInvalid, also for one too low to work."""
    rate = parse_size(name, text)
    if 0 < rate < LEAST_RATE:
        raise ConfigInvalid(f"{name} must be 0 (no limit) or at least {LEAST_RATE // 1024}K a second, not {text!r}")
    return rate


def parse_duration(name: str, text: str) -> float:
    """Seconds: whole seconds, or a Go duration such as 1h30m; negative means forever (-1). Raises ConfigInvalid."""
    bare = text.strip()
    sign, digits = (-1, bare[1:]) if bare.startswith("-") else (1, bare)
    if digits.isdecimal():
        return FOREVER_S if sign < 0 and int(digits) else float(digits)
    parts = _GO_DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise ConfigInvalid(f"{name} must be a duration such as 5m, 1h30m or 300, not {text!r}")
    total = sum(float(number) * _GO_UNITS_S[unit] for number, unit in parts)
    return FOREVER_S if sign < 0 else total


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigInvalid(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def _count(name: str, value: str, *, least: int = 0, most: int) -> int:
    if not value.isdecimal() or not least <= int(value) <= most:
        raise ConfigInvalid(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return int(value)


def _boolean(value: str) -> bool:
    return value.lower() not in ("", "0", "f", "false", "no", "off")


def _boolean_or_none(value: str) -> bool | None:
    return _boolean(value) if value else None


def _flash(value: str) -> str:
    return "auto" if value.lower() == "auto" else ("on" if _boolean(value) else "off")


def _list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())
