from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Anonymous, Identity, KeyHolder, Role, TokenHolder, TokenScope
from auth.policy import Decision, Mode, Right, Situation, decide, grantable
from auth.scopes import Scope, parse_scopes
from storage.reference import RepositoryName

ALLOW, IDENTIFY, WIDEN, REFUSE = Decision.ALLOW, Decision.IDENTIFY, Decision.WIDEN, Decision.REFUSE


def is_private(namespace: str) -> bool:
    return namespace != "public"


def key(**roles: str) -> KeyHolder:
    return KeyHolder(fingerprint="SHA256:x", roles={name: Role(role) for name, role in roles.items()})


def token(*scopes: str, within: frozenset[str] | None = None) -> TokenHolder:
    return TokenHolder(token_id="t", name="ci", scopes=frozenset(map(TokenScope, scopes)), namespaces=within)


CALLERS: dict[str, Identity] = {
    "nobody": Anonymous(),
    "nobody+": Anonymous().under(parse_scopes(["repository:public/m:pull"])),
    "puller": key(alice="pull"),
    "pusher": key(alice="push"),
    "owner": key(alice="admin"),
    "pusher+pull": key(alice="push").under(parse_scopes(["repository:alice/m:pull"])),
    "pusher+push": key(alice="push").under(parse_scopes(["repository:alice/m:pull,push"])),
    "token pull": token("pull"),
    "token push": token("push"),
    "token push@bob": token("push", within=frozenset({"bob"})),
    "token delete": token("delete"),
    "token infer": token("infer"),
    "token infer@alice": token("infer", within=frozenset({"alice"})),
    "admin": token("admin"),
    "admin+push": token("admin").under(parse_scopes(["repository:alice/m:pull,push"])),
}

# right, what is wanted, then who is allowed, who is told to widen, who is refused; all others must identify themselves
REMOTE: list[tuple[Right, str, set[str], set[str], set[str]]] = [
    (Right.PUBLIC, "", set(CALLERS), set(), set()),
    (Right.PING, "", set(CALLERS) - {"nobody"}, set(), set()),
    (Right.LOGIN, "", set(CALLERS) - {"nobody", "nobody+"}, set(), set()),
    (Right.PULL, "public/m:pull", set(CALLERS), set(), set()),
    (
        Right.PULL,
        "alice/m:pull",
        {"puller", "pusher", "owner", "pusher+pull", "pusher+push", "token pull", "token push", "admin", "admin+push"},
        set(),
        {"token push@bob", "token delete", "token infer", "token infer@alice"},
    ),
    (
        Right.PUSH,
        "alice/m:push",
        {"pusher", "owner", "pusher+push", "token push", "admin", "admin+push"},
        {"pusher+pull"},
        {"puller", "token pull", "token push@bob", "token delete", "token infer", "token infer@alice"},
    ),
    (
        Right.PUSH,
        "public/m:push",
        {"token push", "admin"},
        {"admin+push"},
        set(CALLERS) - {"nobody", "nobody+", "token push", "admin", "admin+push"},
    ),
    (
        Right.DELETE,
        "alice/m:delete",
        {"owner", "token delete", "admin"},
        {"admin+push"},
        set(CALLERS) - {"nobody", "nobody+", "owner", "token delete", "admin", "admin+push"},
    ),
    (Right.PUSH, "", set(), set(), set(CALLERS)),
    (
        Right.CATALOG,
        "",
        {name for name in CALLERS if "+" not in name} - {"nobody"},
        {"pusher+pull", "pusher+push", "admin+push"},
        set(),
    ),
    (
        Right.INFER,
        "",
        {"token infer", "token infer@alice", "admin"},
        set(),
        set(CALLERS) - {"nobody", "nobody+", "token infer", "token infer@alice", "admin"},
    ),
    (
        Right.INFER,
        "bob/m:infer",
        {"token infer", "admin"},
        set(),
        set(CALLERS) - {"nobody", "nobody+", "token infer", "admin"},
    ),
    (Right.READ_MODELS, "", set(CALLERS) - {"nobody", "nobody+"}, set(), set()),
    (
        Right.READ_MODELS,
        "alice/m:pull",
        {"puller", "pusher", "owner", "pusher+pull", "pusher+push", "token pull", "token push"}
        | {"admin", "admin+push", "token infer", "token infer@alice"},
        set(),
        {"token push@bob", "token delete"},
    ),
    (
        Right.MANAGE,
        "",
        {"pusher", "owner", "pusher+pull", "pusher+push", "token push", "token push@bob", "token delete"}
        | {"admin", "admin+push"},
        set(),
        {"puller", "token pull", "token infer", "token infer@alice"},
    ),
    (
        Right.MANAGE,
        "public/m:pull alice/m:push",
        {"pusher", "owner", "pusher+push", "token push", "admin", "admin+push"},
        {"pusher+pull"},
        {"puller", "token pull", "token push@bob", "token delete", "token infer", "token infer@alice"},
    ),
    (Right.ADMIN, "", {"admin"}, set(), set(CALLERS) - {"nobody", "nobody+", "admin"}),
]


def wanted_of(text: str) -> list[tuple[RepositoryName, str]]:
    pairs = [each.rsplit(":", 1) for each in text.split()]
    return [(RepositoryName.parse(name), action) for name, action in pairs]


@pytest.mark.parametrize(("right", "wanted", "allowed", "widened", "refused"), REMOTE)
@pytest.mark.parametrize("caller", CALLERS)
def test_the_table_of_a_keyed_server(right, wanted, allowed, widened, refused, caller):
    expected = ALLOW if caller in allowed else WIDEN if caller in widened else REFUSE if caller in refused else IDENTIFY

    assert decide(right, wanted_of(wanted), CALLERS[caller], Situation(Mode.KEYED), is_private) is expected


@pytest.mark.parametrize(("right", "wanted", "allowed", "widened", "refused"), REMOTE)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_loopback_peer_may_use_models_and_no_more(right, wanted, allowed, widened, refused, caller):
    here = decide(right, wanted_of(wanted), CALLERS[caller], Situation(Mode.KEYED, is_loopback=True), is_private)
    remote = decide(right, wanted_of(wanted), CALLERS[caller], Situation(Mode.KEYED), is_private)

    opened = {Right.LOGIN, Right.READ_MODELS, Right.INFER, Right.MANAGE}
    assert here is (ALLOW if right in opened else remote)


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize("caller", CALLERS)
def test_an_open_server_asks_nobody(right, caller):
    wanted = wanted_of("alice/m:push")

    assert decide(right, wanted, CALLERS[caller], Situation(Mode.OPEN), is_private) is ALLOW


def test_of_two_repositories_both_must_be_allowed():
    wanted = wanted_of("alice/m:push bob/m:pull")

    assert decide(Right.PUSH, wanted, CALLERS["pusher"], Situation(Mode.KEYED), is_private) is REFUSE


@pytest.mark.parametrize(
    ("caller", "asked", "granted"),
    [
        ("nobody", "repository:public/m:pull,push repository:alice/m:pull", "repository:public/m:pull"),
        ("nobody", "registry:catalog:*", ""),
        ("puller", "repository:alice/m:pull,push", "repository:alice/m:pull"),
        ("pusher", "repository:alice/m:*", "repository:alice/m:pull,push"),
        ("owner", "repository:alice/m:*", "repository:alice/m:delete,pull,push"),
        ("pusher", "registry:catalog:*", "registry:catalog:*"),
        ("pusher", "registry:other:*", ""),
        ("pusher", "repository:alice/M:pull repository:alice/../bob:pull repository:alicea/m:pull", ""),
        ("token push@bob", "repository:bob/m:pull,push repository:alice/m:push", "repository:bob/m:pull,push"),
        ("token infer", "repository:alice/m:pull,push,delete", ""),
        ("admin", "repository:new/m:delete,pull,push", "repository:new/m:delete,pull,push"),
    ],
)
def test_a_token_covers_what_was_asked_and_is_allowed(caller, asked, granted):
    found = grantable(parse_scopes([asked]), CALLERS[caller], Situation(Mode.KEYED), is_private)

    assert " ".join(map(str, found)) == granted


ASKED = st.lists(
    st.builds(
        Scope.of,
        st.sampled_from(["repository", "registry"]),
        st.sampled_from(["public/m", "alice/m", "bob/m", "catalog", "A//b"]),
        st.sets(st.sampled_from(["pull", "push", "delete", "*"])),
    ),
    max_size=5,
)


@given(ASKED, st.sampled_from(sorted(set(CALLERS) - {"nobody+", "pusher+pull", "pusher+push", "admin+push"})))
def test_a_token_never_opens_what_its_holder_could_not(asked, caller):
    identity = CALLERS[caller]
    granted = grantable(asked, identity, Situation(Mode.KEYED), is_private)

    for scope in granted:
        if scope.type == "repository":
            for action in scope.actions:
                wanted = [(RepositoryName.parse(scope.name), action)]
                right = {"pull": Right.PULL, "push": Right.PUSH, "delete": Right.DELETE}[action]
                assert decide(right, wanted, identity, Situation(Mode.KEYED), is_private) is ALLOW
                assert decide(right, wanted, identity.under(granted), Situation(Mode.KEYED), is_private) is ALLOW
