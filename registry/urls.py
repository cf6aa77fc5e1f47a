"""Addresses of our own, as the client reached us."""

from __future__ import annotations

from auth.access import current_gate


def base_url() -> str:
    """scheme://host[:port] of this request: the configured external URL, a trusted proxy's word, or Host."""
    scheme, host = current_gate().external_scheme_and_host()
    return f"{scheme}://{host}"
