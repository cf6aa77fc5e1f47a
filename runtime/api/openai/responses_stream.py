"""The events of /v1/responses. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.api.answer import Chunk
from runtime.api.openai.responses_body import ResponseBody, function_call, message, output_text, reasoning
from runtime.api.sse import frame
from runtime.messages import Done
from runtime.parsing.calls import ToolCall

JSON = dict[str, Any]


def frames(made: ResponseBody, events: Iterator[Chunk | Done]) -> Iterator[bytes]:
    """All events of one answer, numbered from 0; text that follows a call is left out, as in the reference."""
    writing = _Writing()
    is_begun = False
    for event in events:
        if not is_begun:  # not before the runner has answered: what it refuses still has a status of its own
            is_begun = True
            yield writing.event("response.created", response=made.begun())
            yield writing.event("response.in_progress", response=made.begun())
        if isinstance(event, Done):
            yield from writing.finish()
            yield writing.event("response.completed", response=made.completed(writing.output, event))
            return
        yield from writing.write(event)


class _Writing:
    """The items that have been written, and the one that still grows."""

    def __init__(self) -> None:
        self.output: list[JSON] = []
        self._number = 0
        self._item: JSON | None = None
        self._texts: list[str] = []
        self._has_calls = False

    def event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return frame({"type": kind, "sequence_number": number, **fields}, kind)

    def write(self, chunk: Chunk) -> Iterator[bytes]:
        said = chunk.parsed
        if said.thinking and not self._has_calls:
            yield from self._reason(said.thinking)
        if said.content and not self._has_calls:
            yield from self._say(said.content)
        for call in said.calls:
            yield from self._close()
            yield from self._call(call)

    def finish(self) -> Iterator[bytes]:
        """The end of the last item; an answer of no words has one all the same."""
        written = [*self.output, self._item] if self._item else self.output
        if all(item["type"] == "reasoning" for item in written):
            yield from self._open(message(""))
        yield from self._close()

    def _reason(self, text: str) -> Iterator[bytes]:
        if self._item is None or self._item["type"] != "reasoning":
            yield from self._open(reasoning(""))
        self._texts.append(text)
        yield self._part_event("response.reasoning_summary_text.delta", "summary_index", delta=text)

    def _say(self, text: str) -> Iterator[bytes]:
        if self._item is None or self._item["type"] != "message":
            yield from self._open(message(""))
        self._texts.append(text)
        yield self._part_event("response.output_text.delta", "content_index", delta=text, logprobs=[])

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        """A call comes whole: the parser lets none go before its end."""
        self._has_calls = True
        item = function_call(call)
        place = {"item_id": item["id"], "output_index": len(self.output)}
        yield self._added(item | {"status": "in_progress", "arguments": ""})
        yield self.event("response.function_call_arguments.delta", **place, delta=item["arguments"])
        yield self.event(
            "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
        )
        yield self._done(item)

    def _open(self, item: JSON) -> Iterator[bytes]:
        """Begin an item, after the one before it has ended."""
        yield from self._close()
        self._item = item
        if item["type"] == "reasoning":
            yield self._added(item | {"summary": [], "encrypted_content": ""})
            return
        yield self._added(item | {"status": "in_progress", "content": []})
        yield self._part_event("response.content_part.added", "content_index", part=output_text(""))

    def _close(self) -> Iterator[bytes]:
        """End the item that grows, if one does."""
        if self._item is None:
            return
        item, text = self._item, "".join(self._texts)
        if item["type"] == "reasoning":
            item |= {"summary": [{"type": "summary_text", "text": text}], "encrypted_content": text}
            yield self._part_event("response.reasoning_summary_text.done", "summary_index", text=text)
        else:
            item |= {"content": [output_text(text)]}
            yield self._part_event("response.output_text.done", "content_index", text=text, logprobs=[])
            yield self._part_event("response.content_part.done", "content_index", part=output_text(text))
        self._item, self._texts = None, []
        yield self._done(item)

    def _part_event(self, kind: str, part_key: str, **fields: Any) -> bytes:
        """An event of the only part of the item that grows."""
        assert self._item is not None
        return self.event(kind, item_id=self._item["id"], output_index=len(self.output), **{part_key: 0}, **fields)

    def _added(self, item: JSON) -> bytes:
        return self.event("response.output_item.added", output_index=len(self.output), item=item)

    def _done(self, item: JSON) -> bytes:
        index = len(self.output)
        self.output.append(item)
        return self.event("response.output_item.done", output_index=index, item=item)
