"""The supervisor's socket: what web workers ask, and the life of a lease, which is that of its connection."""

from __future__ import annotations

import asyncio
import math
import os
import time
from pathlib import Path
from typing import Any

from runtime.errors import InputInvalid, QueueFull, RuntimeFailure
from runtime.failures import error_event
from runtime.messages import ModelSpec
from runtime.supervisor.fleet import Fleet
from runtime.supervisor.room import choose
from runtime.supervisor.runner import Runner
from runtime.wire import FrameInvalid, encode_frame, read_frame

_REQUEST_S = 10.0
_MOST_CONNECTIONS = 4096
_LONGEST_CALLER = 256


class Service:
    """Answers requests; one a connection."""

    def __init__(self, fleet: Fleet, vocabularies: Fleet, stopping: asyncio.Event) -> None:
        """vocabularies: runners without weights, which are no loaded models to anybody."""
        self._fleet = fleet
        self._vocabularies = vocabularies
        self._stopping = stopping
        self._connections: set[asyncio.Task[None]] = set()
        self._room_made_at = -math.inf

    async def listen(self, path: Path) -> asyncio.Server:
        """Open the socket, for our own user alone: the umask is set."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(path), backlog=512)
        path.chmod(0o600)
        return server

    async def close(self) -> None:
        """Drop all connections."""
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) > _MOST_CONNECTIONS:
                _send(writer, _refusal(QueueFull("server busy, please try again", retry_after_s=1)))
            else:
                await self._answer(reader, writer)
        except (OSError, FrameInvalid, TimeoutError, asyncio.CancelledError):
            pass  # the client left, makes no sense, or we are closing: there is nobody to tell
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await asyncio.wait_for(read_frame(reader), _REQUEST_S)
        if request is None:
            return
        try:
            if request.get("op") == "lease":
                await self._lease(request, reader, writer)
                return
            _send(writer, await self._fact(request))
        except RuntimeFailure as error:
            _send(writer, _refusal(error))
        await writer.drain()

    async def _fact(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("op"):
            case "ping":
                return {"event": "done", "pid": os.getpid()}
            case "ps":
                return {"event": "done", "models": [loaded.to_json() for loaded in self._fleet.ps()]}
            case "unload":
                return {"event": "done", "was_loaded": await self._fleet.unload(str(request.get("identity")))}
            case "make_room":
                lacking, since = int(request.get("lacking", 0)), float(request.get("since", 0.0))
                return {"event": "done", "wait_s": await self._make_room(lacking, since)}
            case "stop":
                self._stopping.set()
                return {"event": "done"}
            case unknown:
                raise InputInvalid(f"the supervisor cannot do {unknown!r}")

    async def _make_room(self, lacking: int, since: float) -> float | None:
        """0.0 once idle runners have given up files of so many bytes; in how many seconds they may; None if never.

        since: when, by the monotonic clock, who asks found no room. If some has been made after that, it may do.
        """
        if self._room_made_at >= since:
            return 0.0
        choice = choose([*self._vocabularies.holders(), *self._fleet.holders()], lacking, time.time())
        if choice is None:
            return None
        if choice.wait_s > 0:
            return choice.wait_s
        if not all([await fleet.end(choice.identities) for fleet in (self._vocabularies, self._fleet)]):
            return None
        self._room_made_at = time.monotonic()
        return 0.0

    async def _lease(self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            spec = ModelSpec.from_json(request["spec"])
            keep_alive = request.get("keep_alive")
            keep_alive_s = None if keep_alive is None else float(keep_alive)
            caller = str(request.get("caller") or "")[:_LONGEST_CALLER]
        except (KeyError, TypeError, ValueError) as error:
            raise InputInvalid(f"the lease cannot be read: {error!r}") from None
        hang_up = asyncio.ensure_future(reader.read(1))  # a client says nothing more: readable means closed
        try:
            if spec.vocabulary_of and (loaded := self._fleet.share(spec.vocabulary_of)) is not None:
                await self._hold(self._fleet, loaded, hang_up, writer)
                return
            fleet = self._vocabularies if spec.vocabulary_of else self._fleet
            lease = fleet.lease(spec, keep_alive_s, lambda event: _send(writer, event), caller=caller)
            runner = await _granted(asyncio.ensure_future(lease), hang_up)
            if runner is not None:
                await self._hold(fleet, runner, hang_up, writer)
        finally:
            hang_up.cancel()

    async def _hold(
        self, fleet: Fleet, runner: Runner, hang_up: asyncio.Future[bytes], writer: asyncio.StreamWriter
    ) -> None:
        """Keep the lease until the client hangs up; tell it if the runner ends before."""
        ended = asyncio.ensure_future(runner.ended.wait())
        began = time.monotonic()
        try:
            _send(
                writer,
                {
                    "event": "ready",
                    "socket": str(runner.socket),
                    "context_length": runner.plan.context_length,
                    "parallel": runner.plan.parallel,
                },
            )
            await _first_of(ended, hang_up)
            if ended.done():
                _send(writer, {"event": "gone", "message": runner.end_message})
                await asyncio.wait({hang_up})
        finally:
            ended.cancel()
            fleet.release(runner, time.monotonic() - began)


async def _granted(lease: asyncio.Future[Runner], hang_up: asyncio.Future[bytes]) -> Runner | None:
    """The leased runner; None where the client left before it was there."""
    try:
        await _first_of(lease, hang_up)
    except asyncio.CancelledError:
        lease.cancel()
        raise
    if lease.done():
        return lease.result()
    lease.cancel()
    await asyncio.wait({lease})
    return None


def _refusal(error: RuntimeFailure) -> dict[str, Any]:
    """The event of `error`, with when to ask again where that is known."""
    later = {key: error.detail[key] for key in ("retry_after_s",) if key in error.detail}
    return error_event(error) | later


def _send(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(encode_frame(event))


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
