"""Who refers to a manifest. Spec: "Listing Referrers"."""

from __future__ import annotations

from flask import Response, json, request
from flask.typing import ResponseReturnValue

from registry.services import store
from storage.digest import Digest
from storage.manifest import OCI_INDEX
from storage.reference import RepositoryName


def list_referrers(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-12: an index of the manifests whose subject is `reference`, empty when there is none.

    Raises DigestInvalid.
    """
    digest = Digest.parse(reference)
    # a "+" of a media type arrives as a space from clients that do not escape it
    artifact_type = (request.args.get("artifactType") or "").replace(" ", "+") or None
    found = store().repositories.referrers(name, digest, artifact_type)
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    response = Response(json.dumps(body, sort_keys=False), content_type=OCI_INDEX)
    if artifact_type is not None:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response
