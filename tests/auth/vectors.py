"""Published values of the Ollama registry protocol's test vector; the signatures were checked upstream."""

from __future__ import annotations

SEED = bytes(range(32))
RAW_PUBLIC = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
LINE = f"ssh-ed25519 {BLOB}"
FINGERPRINT = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"

TS = 1_700_000_000
NONCE = "AAECAwQFBgcICQoLDA0ODw"
ORIGIN = "https://registry.example.com"
SERVICE = "registry.example.com"
SCOPE = "repository:alice/tiny:pull,push"
TARGET = (
    "/v2/token?nonce=AAECAwQFBgcICQoLDA0ODw&scope=repository%3Aalice%2Ftiny%3Apull%2Cpush"
    "&service=registry.example.com&ts=1700000000"
)
TOKEN_HEADER = f"{BLOB}:cftm/OvUMUfmGx4JgtoaJXGDaYahkcNB2JQI74zX4vY6nXk7wuVlBODtm4CphZBclM4+3gSClEY5xlcXeQSBAQ=="

API_TARGET = "/api/me?ts=1700000000"
API_HEADER = f"{BLOB}:rIiY96jUDn3p5ExfP1C9/9nYzXAVUHfjrzeKC99KPtAvDgslJUcQu+zgUAVvRL4qthmIXTes0HMMaoLoLjgbBQ=="

CLIENT2_BEARER = (
    "Bearer aHR0cHM6Ly9vbGxhbWEuY29tP3RzPTE3MDAwMDAwMDA=:"
    f"{BLOB}:AmpBFNR0AcHt5SxIeaMVQFri5yhyAksIgmELPRACdYW3erylArr32SNSF0TMLtfMQLZitJW25qMLyEpoXu5cAg=="
)
