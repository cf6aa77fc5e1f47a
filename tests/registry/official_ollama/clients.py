"""PyPI's two clients, asked in one way: every method ends before it returns, and a stream is the list of its parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import ollama
import pytest

from tests.server import Server

CLOUD = "https://ollama.com"  # where the clients search the web, whatever their host is
_PATIENCE_S = 60.0


class ByItself:
    """`Client`."""

    def __init__(self, server: Server) -> None:
        self._client = ollama.Client(server.url, timeout=_PATIENCE_S, **_searching(server))

    def __getattr__(self, method: str) -> Callable[..., Any]:
        asked = getattr(self._client, method)

        def whole(*values: Any, **named: Any) -> Any:
            answer = asked(*values, **named)
            return list(answer) if isinstance(answer, Iterator) else answer

        return whole

    def hang_up(self, method: str, **asked: Any) -> Any:
        """The first part of a stream; nobody reads the others."""
        stream = getattr(self._client, method)(stream=True, **asked)
        first = next(stream)
        stream.close()
        return first

    def end(self) -> None:
        self._client.close()


class InALoop:
    """`AsyncClient`."""

    def __init__(self, server: Server) -> None:
        self._client = ollama.AsyncClient(server.url, timeout=_PATIENCE_S, **_searching(server))
        self._loop = asyncio.Runner()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        asked = getattr(self._client, method)

        async def whole(*values: Any, **named: Any) -> Any:
            answer = await asked(*values, **named)
            return [part async for part in answer] if isinstance(answer, AsyncIterator) else answer

        return lambda *values, **named: self._loop.run(whole(*values, **named))

    def hang_up(self, method: str, **asked: Any) -> Any:
        """The first part of a stream; nobody reads the others."""

        async def begin() -> Any:
            stream = await getattr(self._client, method)(stream=True, **asked)
            first = await anext(stream)
            await stream.aclose()
            return first

        return self._loop.run(begin())

    def end(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


OfficialClient = ByItself | InALoop


def refusal(client: OfficialClient, method: str, **asked: Any) -> tuple[int, str]:
    """Status and text of the error that a method ends with."""
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(client, method)(**asked)
    return caught.value.status_code, caught.value.error


def _searching(server: Server) -> dict[str, Any]:
    """A token, without which they do not search; and what they ask of the cloud goes to a server of ours."""
    return {"headers": {"Authorization": f"Bearer {server.admin_token}"}, "mounts": {CLOUD: _Cloud(server.url)}}


class _Cloud(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A network whose cloud is one server: its own routes for what the cloud does."""

    def __init__(self, url: str) -> None:
        self._url = url

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.replace("/api/", "/api/experimental/")
        answer = httpx.post(f"{self._url}{path}", json=json.loads(request.read()), timeout=_PATIENCE_S)
        return httpx.Response(answer.status_code, content=answer.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self.handle_request, request)
