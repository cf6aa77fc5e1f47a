"""What a refused caller is told: what is missing, and how an administrator grants it.

The words that the ollama client takes for its own sign-in ("unauthorized", "access denied") are avoided: it would hide
the rest of the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from auth.identity import Identity, KeyHolder, TokenHolder
from auth.policy import CATALOG, Right, Wanted
from auth.scopes import Scope

_PHRASES: Final = {
    Right.PULL: "reading this repository",
    Right.PUSH: "pushing to this repository",
    Right.DELETE: "deleting from this repository",
    Right.CATALOG: "listing the repositories",
    Right.READ_MODELS: "looking at models",
    Right.INFER: "running models",
    Right.MANAGE: "changing models",
    Right.ADMIN: "administration",
}
_ACTIONS_OF_RIGHT: Final = {Right.PULL: ("pull",), Right.PUSH: ("pull", "push"), Right.DELETE: ("delete",)}
_ROLES: Final = {"pull": "pull", "push": "push", "delete": "admin"}


def explain(right: Right, wanted: Sequence[Wanted], identity: Identity) -> str:
    """One sentence for whoever was refused `right`."""
    phrase = _PHRASES.get(right, "this")
    if identity.rejected is not None:
        return identity.rejected
    if isinstance(identity, TokenHolder):
        places = sorted({name.namespace for name, _ in wanted})
        where = f" in {', '.join(places)}" if places else ""
        return f"token {identity.name} does not allow {phrase}{where}"
    if right is Right.INFER:
        return "running models needs an access token: tonnage token create NAME --scope infer"
    if right is Right.ADMIN:
        return "administration needs an access token: tonnage token create NAME --scope admin"
    if isinstance(identity, KeyHolder) and wanted:
        name, action = wanted[0]
        command = f"tonnage key add {name.namespace} PUBKEY_FILE --role {_ROLES.get(action, 'admin')}"
        refused = f"key {identity.fingerprint} may not {action} in {name.namespace}"
        return f"{refused}; an administrator allows it with: {command}"
    return f"{phrase} needs a key or an access token"


def wanted_scopes(right: Right, wanted: Sequence[Wanted], also: Sequence[Wanted]) -> tuple[Scope, ...]:
    """What a token must cover to be let in, as a challenge names it; `also` is what would be welcome besides."""
    if right is Right.CATALOG:
        return (CATALOG,)
    actions = _ACTIONS_OF_RIGHT.get(right)
    first = [
        Scope.of("repository", name.text, actions if actions is not None else (action,)) for name, action in wanted
    ]
    merged: dict[str, set[str]] = {}
    for scope in (*first, *(Scope.of("repository", name.text, (action,)) for name, action in also)):
        merged.setdefault(scope.name, set()).update(scope.actions)
    return tuple(Scope.of("repository", name, actions) for name, actions in merged.items())
