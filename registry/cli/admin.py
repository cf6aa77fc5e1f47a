"""Commands that say who may do what: namespaces, keys and tokens, straight in the database."""

from __future__ import annotations

import time
from pathlib import Path

import click

from auth.audit import What
from auth.errors import AuthError
from auth.grants import KeyGrants
from auth.key_set import KeySet, key_id, rotate
from auth.keys import PublicKey, is_fingerprint
from auth.published_keys import PublishedKeys
from auth.refused import RefusedKeys
from auth.tokens import AccessTokens
from registry.cli.audit import time_text
from registry.cli.serve import config_of, opened_database, with_config
from registry.cli.traces import leave
from registry.remotes.identity import server_identity
from registry.server import CannotServe, make_folders
from storage.namespaces import Namespaces

_PUBKEY_MAX_BYTES = 16 * 2**10


@click.group()
def namespace() -> None:
    """What keys are granted to: the first part of a repository's name."""


@namespace.command("create")
@click.argument("name")
@click.option("--private/--public", "is_private", default=True, help="Who may pull; private unless told otherwise.")
@with_config
def create_namespace(name: str, is_private: bool, **flags: object) -> None:
    """Create namespace NAME."""
    with opened_database(config_of(**flags), AuthError) as database:
        Namespaces(database).create(name, is_private=is_private)
        leave(database, What.NAMESPACE_CREATE, namespace=name, detail="private" if is_private else "public")
    click.echo(f"created {name} ({'private' if is_private else 'public'})")


@namespace.command("set")
@click.argument("name")
@click.option("--private/--public", "is_private", required=True)
@with_config
def set_namespace(name: str, is_private: bool, **flags: object) -> None:
    """Make namespace NAME private or public."""
    with opened_database(config_of(**flags), AuthError) as database:
        Namespaces(database).set_private(name, is_private)
        leave(database, What.NAMESPACE_CHANGE, namespace=name, detail="private" if is_private else "public")
    click.echo(f"{name} is {'private' if is_private else 'public'}")


@namespace.command("list")
@with_config
def list_namespaces(**flags: object) -> None:
    """List the namespaces."""
    with opened_database(config_of(**flags), AuthError) as database:
        for each in Namespaces(database).list():
            click.echo(f"{each.name}\t{'private' if each.is_private else 'public'}")


@click.group()
def key() -> None:
    """The ed25519 keys of publishers and readers."""


@key.command("add")
@click.argument("namespace_name", metavar="NAMESPACE")
@click.argument("pubkey", metavar="PUBKEY_FILE|FINGERPRINT")
@click.option("--role", type=click.Choice(["pull", "push", "admin"]), default="push", show_default=True)
@with_config
def add_key(namespace_name: str, pubkey: str, role: str, **flags: object) -> None:
    """Let the key in PUBKEY_FILE (an OpenSSH .pub file) into NAMESPACE, or a refused key by its FINGERPRINT."""
    with opened_database(config_of(**flags), AuthError) as database:
        refused, grants = RefusedKeys(database), KeyGrants(database)
        public = refused.get(pubkey).key if is_fingerprint(pubkey) else PublicKey.parse(_read_text(Path(pubkey)))
        is_new = namespace_name not in grants.roles_of(public.fingerprint)
        grants.add(namespace_name, public, role)
        what = What.KEY_ADD if is_new else What.KEY_CHANGE
        leave(database, what, namespace=namespace_name, reference=public.fingerprint, detail=role)
        refused.forget(public.fingerprint)
    click.echo(f"{public.fingerprint} may {role} in {namespace_name}")


@key.command("show")
@with_config
def show_own_key(**flags: object) -> None:
    """Print this server's own public key: what other registries let in for its pulls and pushes."""
    config = config_of(**flags)
    try:
        make_folders(config)
        click.echo(server_identity(config.keys_path).public.line)
    except (AuthError, CannotServe) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot use the keys in {config.keys_path}: {error.strerror}") from error


@key.command("list")
@with_config
def list_keys(**flags: object) -> None:
    """List the keys and what each may do."""
    with opened_database(config_of(**flags), AuthError) as database:
        for grant in KeyGrants(database).list():
            click.echo(f"{grant.fingerprint}\t{grant.namespace}\t{grant.role}")


@key.command("remove")
@click.argument("fingerprint")
@with_config
def remove_key(fingerprint: str, **flags: object) -> None:
    """Take every grant from the key with FINGERPRINT."""
    with opened_database(config_of(**flags), AuthError) as database:
        grants = KeyGrants(database)
        roles = grants.roles_of(fingerprint)
        if not grants.remove(fingerprint):
            raise click.ClickException(f"no grant of {fingerprint}; `tonnage key list` shows those there are")
        taken = ", ".join(f"{role} in {name}" for name, role in roles.items())
        leave(database, What.KEY_REMOVE, reference=fingerprint, detail=taken)
    click.echo(f"removed {fingerprint}")


@key.command("refused")
@click.option("--clear", is_flag=True, help="Forget them all.")
@with_config
def list_refused_keys(clear: bool, **flags: object) -> None:
    """List keys that signed as they should and that nobody let in, those seen last at the end."""
    with opened_database(config_of(**flags), AuthError) as database:
        if clear:
            click.echo(f"forgot {RefusedKeys(database).forget()}")
            return
        for each in RefusedKeys(database).list():
            times = "once" if each.count == 1 else f"{each.count} times"
            wanted = each.wanted or "-"
            click.echo(
                f"{each.key.fingerprint}\t{wanted}\t{times}, first {time_text(each.first_seen_at)}, "
                f"last {time_text(each.last_seen_at)} from {each.address}\n  {each.key.line}\n  {each.command}"
            )


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_PUBKEY_MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error


@click.group()
def token() -> None:
    """Access tokens for people, machines and docker login."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(["pull", "push", "delete", "infer", "admin"])
)
@click.option("--namespace", "namespaces", multiple=True, help="Only there; everywhere when not given.")
@click.option("--expires", metavar="DAYSd", help="For example 90d; never when not given.")
@with_config
def create_token(
    name: str, scopes: tuple[str, ...], namespaces: tuple[str, ...], expires: str | None, **flags: object
) -> None:
    """Create a token called NAME and print its secret, this once, on the last line."""
    expires_at = None if expires is None else time.time() + _days(expires) * 86400
    with opened_database(config_of(**flags), AuthError) as database:
        secret = AccessTokens(database).create(name, scopes=scopes, namespaces=namespaces, expires_at=expires_at)
        said = f"{','.join(scopes)} in {','.join(namespaces) or 'every namespace'}"
        leave(database, What.TOKEN_CREATE, reference=name, detail=said)
    click.echo("The secret is not kept; this is the only time it is shown:")
    click.echo(secret)


@token.command("list")
@with_config
def list_tokens(**flags: object) -> None:
    """List the tokens, never their secrets."""
    with opened_database(config_of(**flags), AuthError) as database:
        for each in AccessTokens(database).list():
            state = "revoked" if each.revoked_at is not None else "active"
            where = ",".join(each.namespaces) or "every namespace"
            used = "never used" if each.last_used_at is None else f"used {time_text(each.last_used_at)}"
            click.echo(f"{each.name}\t{','.join(each.scopes)}\t{where}\t{state}\t{used}")


@token.command("revoke")
@click.argument("name")
@with_config
def revoke_token(name: str, **flags: object) -> None:
    """Make the token called NAME worthless at once."""
    with opened_database(config_of(**flags), AuthError) as database:
        AccessTokens(database).revoke(name)
        leave(database, What.TOKEN_REVOKE, reference=name)
    click.echo(f"revoked {name}")


@token.command("rotate-key")
@with_config
def rotate_key(**flags: object) -> None:
    """Make a new key for signing bearer tokens; the one before stays good until the next rotation.

    Access tokens are not touched. The server signs with the new key after its next start. Each node has a key of its
    own: this is about the one whose data folder it is.
    """
    config = config_of(**flags)
    with opened_database(config, AuthError) as database:
        before = KeySet(config.keys_path).own
        path = rotate(config.keys_path)
        PublishedKeys(database).publish(KeySet(config.keys_path).own, instead_of=before)
        leave(database, What.SIGNING_KEY_ROTATE, reference=path.name)
    click.echo(f"made {path}; it signs from the server's next start on")


@token.command("signing-keys")
@with_config
def list_signing_keys(**flags: object) -> None:
    """List the keys that nodes sign bearer tokens and addresses with, by their last word of it."""
    config = config_of(**flags)
    with opened_database(config, AuthError) as database:
        own = {key_id(key) for key in KeySet(config.keys_path).own}
        for each in PublishedKeys(database).list():
            whose = "this node's" if each.id in own else "another node's"
            click.echo(f"{each.id}\t{whose}\tsaid {time_text(each.seen_at)}")


@token.command("withdraw-key", context_settings={"ignore_unknown_options": True})  # an ID may begin with a dash
@click.argument("key", metavar="ID")
@with_config
def withdraw_key(key: str, **flags: object) -> None:
    """Let nobody believe what signing key ID has signed: of a node that is lost. One that runs would say it again.

    The others find out within seconds; without this they believe it for three days after the node's last word.
    """
    with opened_database(config_of(**flags), AuthError) as database:
        PublishedKeys(database).withdraw(key)
        leave(database, What.SIGNING_KEY_WITHDRAW, reference=key)
    click.echo(f"withdrew {key}")


def _days(text: str) -> float:
    number = text.removesuffix("d")
    if not number.isdecimal() or not 0 < int(number) <= 36500:
        raise click.BadParameter(f"{text!r} is not a number of days such as 90d", param_hint="--expires")
    return float(number)
