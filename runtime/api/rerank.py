"""POST /api/rerank and /v1/rerank: documents in the order in which they answer a query.

Request and answer are those that Jina and Cohere agree on; servers of both kinds of clients speak it. So are the
scores: `relevance_score` lies between 0 and 1. A classifier's bare number goes through the logistic function, which
keeps the order; a model that gives a probability by itself is left alone.
"""

from __future__ import annotations

from typing import Any

from flask import Response

from runtime.api.errors import Refused
from runtime.api.openai import replies as openai
from runtime.api.openai.requests import read_request
from runtime.api.replies import one_object
from runtime.api.requests import Body
from runtime.api.serving import TRY_PULLING, Call

JSON = dict[str, Any]
_MOST_DOCUMENTS = 1000
_DOCUMENTS = 'field "documents" must be a non-empty array of strings or of objects with a "text"'


def rerank() -> Response:
    """The answer, with refusals in the shape of /api."""
    return one_object(_answer(Call.from_request()))


def rerank_v1() -> Response:
    """The same among the routes of the OpenAI dialect."""
    return openai.one_object(_answer(Call.of(*read_request())))


def _answer(call: Call) -> JSON:
    query, documents, top_n = _asked(call.body)
    returns_documents = call.body.flag("return_documents", False)
    truncate = call.body.flag("truncate", True)
    model = call.find_model(TRY_PULLING)
    if "rerank" not in model.capabilities:
        raise Refused(400, f'"{call.model_name}" does not support rerank')
    lease, _ = call.lease(model)
    with lease:
        ranking = lease.rerank(query, documents, truncate, is_cancelled=call.is_cancelled)
    results: list[JSON] = []
    for index in sorted(range(len(documents)), key=lambda index: -ranking.scores[index])[:top_n]:
        result: JSON = {"index": index, "relevance_score": ranking.scores[index]}
        results.append(result | ({"document": {"text": documents[index]}} if returns_documents else {}))
    usage = {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens}
    return {"model": call.model_name, "results": results, "usage": usage}


def _asked(body: Body) -> tuple[str, list[str], int]:
    """Query, documents, and how many of them are wanted. Raises Refused."""
    if not isinstance(body.raw("query"), str):
        raise Refused(400, 'field "query" must be of type string')
    given = body.raw("documents")
    if not isinstance(given, list) or not given:
        raise Refused(400, _DOCUMENTS)
    if len(given) > _MOST_DOCUMENTS:
        raise Refused(400, f"too many documents: {len(given)}, and {_MOST_DOCUMENTS} are the most of one call")
    documents = [_document(each) for each in given]
    top_n = body.integer("top_n", len(documents))
    if top_n < 1:
        raise Refused(400, 'field "top_n" must be at least 1')
    return body.text("query"), documents, top_n


def _document(given: object) -> str:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str):
        raise Refused(400, _DOCUMENTS)
    return text
