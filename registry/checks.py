"""Settings that only the parts they are for can judge: who may come in, and from which pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from auth.peers import AccessConfig
from auth.tokens import TokenSigner
from registry.config import Config
from registry.origins import Origins


def check_settings(config: Config) -> None:
    """Before anything is started. Raises AuthError, OriginsInvalid."""
    access_of(config)
    TokenSigner(config.keys_path)
    origins_of(config)


def origins_of(config: Config) -> Origins:
    """Raises OriginsInvalid."""
    return Origins(config.origins, checks_host=config.is_loopback, own_host=urlsplit(config.external_url).netloc)


def access_of(config: Config) -> AccessConfig:
    """Raises AuthError."""
    return AccessConfig(
        mode=config.access,
        is_loopback_listener=config.is_loopback,
        trusted_proxies=config.trusted_proxies,
        external_url=config.external_url,
    )
