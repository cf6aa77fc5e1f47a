"""What the model is shown of a conversation. Source: the Ollama API, "POST /v1/chat/completions"."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from storage.store import Store
from tests.openai_app import CHAT, JSON, error, image_uri, post, user, whole
from tests.runtime.parsing.chat_templates import GEMMA3
from tests.stored_models import push_model
from tests.tiny_gguf import write_tiny_gguf

RED = image_uri()
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":"x"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
REMOTE = "image URLs are not currently supported, please use base64 encoded data instead"
BASE64 = "illegal base64 data in an image"


def text(content: str) -> JSON:
    return {"type": "text", "text": content}


def picture(url: object) -> JSON:
    return {"type": "image_url", "image_url": url}


def prompt(client: FlaskClient, model: str, messages: list[JSON], **body: object) -> str:
    shown = whole(client, model=model, messages=messages, _debug_render_only=True, **body)
    return str(shown["_debug_info"]["rendered_template"])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (user("q"), "[user]q"),
        ([{"role": "developer", "content": "d"}, *user("q")], "[developer]d[user]q"),
        ([{"role": "system", "content": "s"}, *user("q")], "[S]s[system]s[user]q"),
        ([*user("q"), CALLED], '[user]q[assistant]f{"a":"x","b":1}'),
        ([*user("q"), CALLED | {"content": ""}], '[user]q[assistant]f{"a":"x","b":1}'),
        (user([]), "[user]"),
        ([*user("q"), CALLED | {"content": []}], '[user]q[assistant]f{"a":"x","b":1}'),
        ([*user("q"), CALLED | {"content": [text("c")]}], '[user]q[assistant]cf{"a":"x","b":1}'),
        ([*user("q"), {"role": "assistant", "reasoning": "why", "content": "a"}, *user("r")],
         "[user]q[assistant]<think>why</think>a[user]r"),
        ([*user("q"), {"role": "assistant", "reasoning": "why", "content": [text("a"), text("b")]}, *user("r")],
         "[user]q[assistant]<think>why</think>a\n\nb[user]r"),
    ],
)  # fmt: skip
def test_messages_become_those_of_the_native_route(ollama: FlaskClient, messages: list[JSON], expected: str) -> None:
    assert prompt(ollama, "go-chat", messages) == f"{expected}[assistant]medium"


def test_trap_73_parts_are_messages_that_the_template_joins(ollama: FlaskClient) -> None:
    parts = user([text("one"), text("two")])

    assert prompt(ollama, "go-chat", parts) == "[user]one\n\ntwo[assistant]medium"
    assert prompt(ollama, "tiny", parts) == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    )


def test_trap_73_parts_are_one_turn_where_turns_have_to_alternate(
    ollama: FlaskClient, ollama_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = write_tiny_gguf(tmp_path_factory.mktemp("strict") / "strict.gguf", chat_template=GEMMA3)
    push_model(ollama_store, "strict", weights)

    shown = prompt(ollama, "strict", user([text("one"), text("two")]))

    assert "<start_of_turn>user\none\n\ntwo<end_of_turn>" in shown


def test_trap_72_an_image_is_a_data_uri(ollama: FlaskClient) -> None:
    plain = RED.replace("image/png", "")
    seen = [
        whole(ollama, model="seeing", messages=user([text("what"), picture(url)]), max_tokens=8, temperature=0)
        for url in (RED, {"url": RED, "detail": "low"}, {"url": plain}, image_uri((0, 0, 255)))
    ]

    answers = [answer["choices"][0]["message"]["content"] for answer in seen]
    assert answers[0] == answers[1] == answers[2] != answers[3]
    unseen = whole(ollama, model="seeing", messages=user([text("what")]), max_tokens=8, temperature=0)
    assert seen[0]["usage"]["prompt_tokens"] > unseen["usage"]["prompt_tokens"] + 10


def test_a_tools_answer_bears_the_name_of_what_was_called(
    ollama: FlaskClient, ollama_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    template = "{% for m in messages %}[{{ m.role }}|{{ m.name }}|{{ m.tool_call_id }}]{{ m.content }}{% endfor %}"
    weights = write_tiny_gguf(tmp_path_factory.mktemp("named") / "named.gguf", chat_template=template)
    push_model(ollama_store, "named", weights)
    told = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}

    by_id = prompt(ollama, "named", [*user("q"), CALLED, told])
    by_name = prompt(ollama, "named", [*user("q"), CALLED, told | {"name": "g"}])
    unknown = prompt(ollama, "named", [*user("q"), CALLED, told | {"tool_call_id": "call_2"}])

    assert by_id.endswith("[tool|f|call_1]sunny")
    assert by_name.endswith("[tool|g|call_1]sunny")
    assert unknown.endswith("[tool||call_2]sunny")


REFUSALS: list[tuple[JSON, str]] = [
    ({"messages": []}, "[] is too short - 'messages'"),
    ({"messages": None}, "[] is too short - 'messages'"),
    ({"messages": "x"}, 'field "messages" must be of type array'),
    ({"messages": ["x"]}, 'field "messages" must be an array of objects'),
    ({"messages": user(None)}, "invalid message content type: <nil>"),
    ({"messages": user(7)}, "invalid message content type: number"),
    ({"messages": user({"a": 1})}, "invalid message content type: object"),
    ({"messages": user(["x"])}, "invalid message format"),
    ({"messages": user([{"type": "text", "text": 1}])}, "invalid message format"),
    ({"messages": user([{"type": "video"}])}, "invalid message format"),
    ({"messages": user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])},
     "audio input is not supported: no model of this server listens"),
    ({"messages": user([picture("http://h/x.png")])}, REMOTE),
    ({"messages": user([picture({"url": "HTTPS://h/x.png"})])}, REMOTE),
    ({"messages": user([picture("AAAA")])}, "invalid image input"),
    ({"messages": user([picture("file:///etc/passwd")])}, "invalid image input"),
    ({"messages": user([picture("data:image/gif;base64,AAAA")])}, "invalid image input"),
    ({"messages": user([picture({})])}, "invalid image input"),
    ({"messages": user([picture("data:image/png;base64,A_-A")])}, BASE64),
    ({"messages": user([picture(RED)])}, '"tiny" does not support images'),
    ({"messages": [CALLED | {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]},
     "invalid tool call arguments"),
    ({"messages": [CALLED | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     "invalid tool call arguments"),
    ({"messages": [CALLED | {"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
     "invalid tool call arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), REFUSALS)
def test_what_cannot_be_shown_is_refused(ollama: FlaskClient, body: JSON, message: str) -> None:
    refused = post(ollama, CHAT, **{"model": "tiny"} | body)

    assert (refused.status_code, refused.json) == error(400, message)
