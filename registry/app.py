"""The app factory: the one place that knows every part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, current_app, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import PathConverter

from auth.access import Gate, current_gate
from auth.audit import What
from auth.grants import KeyGrants, stored_privacy
from auth.policy import Mode
from auth.published_keys import PublishedKeys
from auth.tokens import AccessTokens, TokenSigner
from registry import admin, audit, blobs, chunk_sums, errors, manifests, mirrored, referrers, tags, token, uploads
from registry.checks import access_of, origins_of
from registry.config import Config
from registry.express import NODE_HEADER, Express
from registry.mirror.cache import MirrorCache, Watermarks
from registry.mirror.mirroring import Mirroring
from registry.mirror.mirrors import Mirrors
from registry.models import about, account, copy, listing, openai_models, pull, push, remove, show
from registry.models import blobs as model_blobs
from registry.models.create import routes as create
from registry.openapi import routes as description
from registry.paths import Kind, split_path
from registry.remotes.service import Remotes
from registry.request_ids import request_id
from runtime.api import ollama
from runtime.api.anthropic import routes as anthropic
from runtime.api.openai import routes as openai
from runtime.settings import RuntimeSettings
from runtime.supervisor.client import Supervisor
from storage.db import Database
from storage.drivers.choose import open_copies, open_driver
from storage.errors import NameInvalid, NameUnknown
from storage.reference import RepositoryName
from storage.store import Store

Handler = Callable[[RepositoryName, str], ResponseReturnValue]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_HEAD_RULES = {
    "/",
    "/api/version",
    "/api/tags",
    "/api/blobs/<digest>",
    "/v2",
    "/v2/",
    "/v2/_catalog",
    "/v2/<rest:rest>",
}


def create_app(config: Config) -> Flask:
    """The whole server as a WSGI app. Opens nothing: connections are made by the first request that needs one."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # tool arguments keep the order they were written in
    app.url_map.merge_slashes = False  # a redirect would lose the body of an upload
    _add_services(app, config)
    errors.install(app)
    models = (
        about.bp,
        account.bp,
        listing.bp,
        model_blobs.bp,
        create.bp,
        copy.bp,
        pull.bp,
        push.bp,
        remove.bp,
        show.bp,
        openai_models.bp,
    )
    for blueprint in (token.bp, *models, ollama.bp, openai.bp, anthropic.bp, admin.bp, description.bp):
        app.register_blueprint(blueprint)
    app.add_url_rule("/healthz", view_func=_healthz)
    for rule in ("/v2", "/v2/"):
        app.add_url_rule(rule, view_func=_ping, strict_slashes=True, endpoint=f"ping{rule}")
    app.add_url_rule("/v2/_catalog", view_func=_catalog)
    app.url_map.converters["rest"] = _Rest
    app.add_url_rule("/v2/<rest:rest>", view_func=_dispatch, methods=_METHODS)
    _restrict_head(app)
    origins = origins_of(config)
    app.before_request(_identify_request)
    app.before_request(origins.refusal)
    app.before_request(_check_route)
    app.after_request(_common_headers)
    app.after_request(origins.mark)
    repositories = app.extensions["tonnage.store"].repositories
    is_private = stored_privacy(app.extensions["tonnage.store"].database)
    mirrors = app.extensions["tonnage.mirrors"]
    is_open = config.access == Mode.OPEN
    express = Express(app.wsgi_app, repositories, mirrors, origins, is_private, is_open=is_open, node=config.node)
    app.wsgi_app = express  # type: ignore[method-assign]  # how Flask wants to be wrapped
    return app


def after_fork(app: Flask) -> None:
    """In each worker: no connection of the parent's is ours."""
    app.extensions["tonnage.store"].database.dispose()


def _add_services(app: Flask, config: Config) -> None:
    database = Database(config.database_url, connections=config.connections)
    driver = open_driver(config.data_path, config.bucket)
    store = Store(database, driver, open_copies(config.data_path, driver, config.copy_limits))
    tokens = AccessTokens(database)
    app.extensions["tonnage.config"] = config
    app.extensions["tonnage.store"] = store
    app.extensions["tonnage.gate"] = Gate(
        access_of(config),
        database,
        TokenSigner(config.keys_path, elsewhere=PublishedKeys(database).find),
        tokens,
        KeyGrants(database),
        stored_privacy(database),
    )
    app.extensions["tonnage.supervisor"] = Supervisor(Path(config.run_path))
    app.extensions["tonnage.runtime"] = RuntimeSettings(go_templates=config.go_templates)
    remotes = Remotes(config.remotes)
    app.extensions["tonnage.remotes"] = remotes
    mirrors = app.extensions["tonnage.mirrors"] = Mirrors(database)
    fetches, waiting = config.remotes.transfers, max(1, config.threads * 3 // 4)
    cache = MirrorCache(store, Watermarks(config.mirror_high_bytes, config.mirror_low_bytes))
    mirroring = Mirroring(remotes, store, fetches=fetches, waiting=waiting, cache=cache)
    app.extensions["tonnage.mirroring"] = mirroring
    # what is run counts as pulled: else models in daily use would make room for others
    store.blobs.told_of_use = lambda name, digest: mirroring.reads.note(name, digest) if mirrors.find(name) else None
    audit.install(app, database, tokens)


def _restrict_head(app: Flask) -> None:
    """Flask answers HEAD wherever there is a GET; clients of the native routes are told 405 there."""
    for rule in app.url_map.iter_rules():
        if rule.methods is not None and rule.rule not in _HEAD_RULES:
            rule.methods.discard("HEAD")


def _identify_request() -> None:
    g.request_id = request_id(request.headers.get("X-Request-Id", ""))


def _check_route() -> ResponseReturnValue | None:
    """Deny by default: what the table does not know is refused. Paths below /v2 are judged with their repository."""
    rule = request.url_rule
    if rule is None or rule.rule == "/v2/<rest:rest>":
        return None
    current_gate().authorize(request.method, rule.rule)
    return None


def _common_headers(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "-")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers[NODE_HEADER] = current_app.extensions["tonnage.config"].node
    if (
        response.headers.get("Content-Type", "").startswith("text/html")
        and not response.direct_passthrough
        and not response.get_data()
    ):
        del response.headers["Content-Type"]  # of an empty body; the framework's default
    if errors.is_oci_path():
        response.headers["Docker-Distribution-API-Version"] = "registry/2.0"
    return response


def _healthz() -> ResponseReturnValue:
    return Response("ok", content_type="text/plain")


def _ping() -> ResponseReturnValue:
    """end-1: a registry is here. Spec: "Determining Support"."""
    return Response("{}", content_type="application/json")


def _catalog() -> ResponseReturnValue:
    return tags.list_repositories(current_gate().may_list)


def _can_pull(name: RepositoryName) -> bool:
    return current_gate().may(name, "pull")


HANDLERS: dict[tuple[str, Kind], Handler] = {
    ("HEAD", Kind.BLOB): mirrored.get_blob,
    ("GET", Kind.BLOB): mirrored.get_blob,
    ("DELETE", Kind.BLOB): audit.recorded(What.DELETE_BLOB, blobs.delete_blob),
    ("POST", Kind.UPLOAD_START): lambda name, _: uploads.start_upload(name, _can_pull),
    ("PATCH", Kind.UPLOAD): uploads.append_chunk,
    ("PUT", Kind.UPLOAD): uploads.complete_upload,
    ("GET", Kind.UPLOAD): uploads.upload_status,
    ("HEAD", Kind.UPLOAD): uploads.upload_status,
    ("DELETE", Kind.UPLOAD): uploads.cancel_upload,
    ("HEAD", Kind.MANIFEST): mirrored.get_manifest,
    ("GET", Kind.MANIFEST): mirrored.get_manifest,
    ("PUT", Kind.MANIFEST): manifests.put_manifest,
    ("DELETE", Kind.MANIFEST): manifests.delete_manifest,
    ("GET", Kind.TAGS): tags.list_tags,
    ("GET", Kind.REFERRERS): referrers.list_referrers,
    ("GET", Kind.CHUNK_SUMS): chunk_sums.list_chunk_sums,
}


def allowed_methods(kind: Kind) -> list[str]:
    return [method for method, each in HANDLERS if each == kind]


class _Rest(PathConverter):
    """Whatever follows, with line breaks in it too: names that cannot be are refused by the handler, with a reason."""

    regex = r"(?s:[^/].*?)"


def _dispatch(rest: str) -> ResponseReturnValue:
    """One route for everything below a repository: the path is read from its right end, then judged, then handled."""
    path = split_path(rest)
    if rest == "_catalog":
        raise MethodNotAllowed(["GET", "HEAD"])
    if path is None:
        raise NotFound("no such path below /v2/")
    handler = HANDLERS.get((request.method, path.kind))
    if handler is None:
        raise MethodNotAllowed(allowed_methods(path.kind))
    is_read = request.method in ("GET", "HEAD")
    try:
        name = RepositoryName.parse(path.name)
    except NameInvalid as error:
        if not is_read or path.kind is Kind.REFERRERS:
            raise
        raise NameUnknown("no such repository", **error.detail) from None
    _authorize(path.kind, name, path.reference)
    if not is_read and request.method != "DELETE":
        mirrored.check_not_mirrored(name)
    return handler(name, path.reference)


def _authorize(kind: Kind, name: RepositoryName, reference: str) -> None:
    """Let the request pass, or raise with a challenge that names what the client is about to need as well."""
    if kind is Kind.UPLOAD:
        opened_with = current_app.extensions["tonnage.store"].uploads.opened_with
        g.identity = current_gate().authorize_session(request.method, kind, name, lambda: opened_with(name, reference))
        return
    g.identity = current_gate().authorize(request.method, kind, name, also=_likely_needs(kind, name))


def _likely_needs(kind: Kind, name: RepositoryName) -> list[tuple[RepositoryName, str]]:
    """A push begins with HEAD of its blobs, a mount reads its source: one token for all of it saves a second 401.

    Some clients never ask for a second token. Nobody is granted more than they are entitled to.
    """
    if kind is Kind.BLOB and request.method == "HEAD":
        return [(name, "push")]
    source = request.args.get("from") if kind is Kind.UPLOAD_START and "mount" in request.args else None
    try:
        return [(RepositoryName.parse(source), "pull")] if source is not None else []
    except NameInvalid:
        return []
