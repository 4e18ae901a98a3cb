"""Requests of Ollama's API become requests of the contract.

Subjects: api_shim/ollama/chat_request.py, api_shim/ollama/embed.py, api_shim/ollama/models.py.
"""

import time
from typing import Any

import pytest

from api_shim.ollama import chat_request, embed, model_responses, models
from api_shim.ollama.chat_request import OllamaChatBody
from api_shim.ollama.request_fields import keep_alive_s
from api_shim.submission.ignored_fields import ignored
from contract.chat import ChatRequest, ImagePart, JsonFormat, SchemaFormat, TextFormat
from contract.errors import InvalidRequest
from contract.models import LoadRequest, UnloadRequest

HELLO = [{"role": "user", "content": "hello"}]
CALLS = [
    {"function": {"name": "look", "arguments": {"at": "cat"}}},
    {"function": {"name": "look", "arguments": {"at": "dog"}}},
    {"function": {"name": "hear", "arguments": "{}"}},
]


def chatting(**fields: Any) -> Any:
    return chat_request.chat_to_job(
        chat_request.OllamaChatBody(model="m", **{"messages": HELLO, **fields})
    )


def generating(**fields: Any) -> Any:
    return chat_request.generate_to_job(
        chat_request.GenerateBody(model="m", **{"prompt": "hello", **fields})
    )


def test_options_that_all_backends_have_become_fields() -> None:
    job = chatting(
        options={"num_predict": 5, "temperature": 0, "top_p": 0.5, "stop": "x", "num_thread": 3}
    )

    assert (job.max_tokens, job.temperature, job.top_p, job.stop) == (5, 0, 0.5, ("x",))


def test_numbers_that_mean_without_a_limit_are_left_out() -> None:
    job = chatting(options={"num_predict": -1, "seed": -1, "top_k": -1, "temperature": None})

    assert (job.max_tokens, job.seed, job.top_k, job.temperature) == (None, None, None, None)


def test_an_option_out_of_range_is_refused_by_the_callers_name_for_it() -> None:
    with pytest.raises(InvalidRequest, match=r"^options\.temperature: .*5"):
        chatting(options={"temperature": 9})


@pytest.mark.parametrize(
    ("asked", "meant"),
    [(None, "auto"), ("", "auto"), (True, "on"), (False, "off"), ("max", "xhigh")],
)
def test_thinking_is_translated(asked: Any, meant: str) -> None:
    assert chatting(think=asked).think == meant


def test_a_wrong_word_for_thinking_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="invalid think value: 'lots'"):
        chatting(think="lots")


def test_formats_are_translated() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    assert chatting(format="").response_format == TextFormat()
    assert chatting(format="json").response_format == JsonFormat()
    assert chatting(format=schema).response_format == SchemaFormat(schema_=schema)
    with pytest.raises(InvalidRequest, match=r"^format: "):
        chatting(format="yaml")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("90", 90), (60, 60),
        (0, 0), (0.0, 0), ("0", 0), (-1, -1), ("-1", -1), ("-1m", -1), (-5, -1), (None, None),
    ],
)  # fmt: skip
def test_a_model_is_kept_for_as_long_as_requested(asked: Any, seconds: float | None) -> None:
    assert chatting(keep_alive=asked).keep_alive_s == seconds


@pytest.mark.parametrize("asked", ["soon", "5 m", "m", "5m!", "--1", "5q"])
def test_no_duration_is_refused(asked: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^keep_alive: "):
        chatting(keep_alive=asked)


@pytest.mark.parametrize("asked", ["1" * 3000 + "x", "1s" * 3000 + "x", "9" * 400])
def test_a_long_duration_is_refused_at_once(asked: str) -> None:
    began_at = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"^keep_alive"):
        keep_alive_s(asked)

    assert time.perf_counter() - began_at < 1  # the cube of the digits took a minute


@pytest.mark.parametrize("make", [chatting, generating])
def test_without_words_the_model_is_loaded_or_unloaded(make: Any) -> None:
    empty = {"messages": []} if make is chatting else {"prompt": ""}

    assert make(**empty, keep_alive="1m") == LoadRequest(model="m", keep_alive_s=60)
    assert make(**empty, keep_alive=0) == UnloadRequest(model="m")
    assert isinstance(make(keep_alive=0), ChatRequest)


def test_what_the_client_sends_as_null_is_absent() -> None:
    nulls = dict.fromkeys(("tools", "options", "format", "think", "keep_alive", "stream"))

    assert chatting(**nulls) == chatting()


def test_tools_are_described_and_an_empty_list_is_none() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    assert [each.name for each in chatting(tools=[tool]).tools] == ["look"]
    assert chatting(tools=[]).tools == ()


def test_images_stand_beside_the_text() -> None:
    (message,) = chatting(
        messages=[{"role": "user", "content": "see", "images": ["iVBORw0KGgo="]}]
    ).messages
    (alone,) = generating(prompt="see", images=["iVBORw0KGgo="]).messages

    assert message.images == alone.images == ("iVBORw0KGgo=",)
    assert message.content[1] == ImagePart(image="iVBORw0KGgo=")


def test_answers_of_tools_find_the_calls_whose_ids_the_client_dropped() -> None:
    answers = [
        {"role": "tool", "content": "1", "tool_name": "hear"},
        {"role": "tool", "content": "2", "tool_name": "look"},
        {"role": "tool", "content": "3"},
    ]
    job = chatting(messages=[*HELLO, {"role": "assistant", "tool_calls": CALLS}, *answers])
    calls = [call.id for call in job.messages[1].tool_calls]
    answered = [message.tool_call_id for message in job.messages[2:]]

    assert len(set(calls)) == 3
    assert answered == [calls[2], calls[0], calls[1]]
    assert job.messages[1].tool_calls[0].arguments == '{"at":"cat"}'


def test_ids_of_calls_are_new_in_each_turn_and_kept_where_given() -> None:
    given = {"id": "mine", "function": {"name": "look", "arguments": {}}}
    turn = {"role": "assistant", "tool_calls": [*CALLS[:1], given]}
    answer = {"role": "tool", "content": "1", "tool_call_id": "mine"}
    job = chatting(messages=[*HELLO, turn, answer, turn])
    ids = [call.id for message in job.messages for call in message.tool_calls]

    assert ids == ["call_0", "mine", "call_2", "mine"]
    assert job.messages[2].tool_call_id == "mine"


def test_a_prompt_is_a_users_turn_behind_the_system() -> None:
    job = generating(system="Be brief.")

    assert [(m.role, m.text) for m in job.messages] == [("system", "Be brief."), ("user", "hello")]


def test_raw_prompts_and_gaps_are_text_to_continue() -> None:
    raw, gap = generating(raw=True), generating(suffix="end")

    assert (raw.prompt, raw.suffix, raw.messages) == ("hello", None, ())
    assert (gap.prompt, gap.suffix) == ("hello", "end")
    with pytest.raises(InvalidRequest, match=r"^system: "):
        generating(raw=True, system="x")


@pytest.mark.parametrize("field", [{"context": (1,)}, {"template": "{{ .Prompt }}"}])
def test_what_means_nothing_to_another_backend_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{next(iter(field))}: "):
        generating(**field)


def test_an_empty_context_is_none() -> None:
    assert generating(context=(), template="") == generating()


def test_texts_to_embed() -> None:
    def job(**fields: Any) -> Any:
        return embed.to_embed_job(embed.EmbedBody(model="m", **fields))

    assert job(input="one", dimensions=8, truncate=False).input == ("one",)
    assert job(input=["one", ""]).input == ("one", "")
    assert isinstance(job(input=""), LoadRequest)
    assert isinstance(job(input=[], keep_alive=0), UnloadRequest)
    assert embed.to_embed_job(embed.EmbeddingsBody(model="m", prompt="one")).kind == "embed"


def test_a_model_is_made_from_another() -> None:
    body = model_responses.CreateBody.model_validate(
        {"model": "pirate", "from": "m", "system": "Arr.", "parameters": {"stop": ["x"]}}
    )
    job = model_responses.to_create(body)

    assert (job.model, job.source, job.system) == ("pirate", "m", "Arr.")
    assert job.parameters == {"stop": ["x"]}


@pytest.mark.parametrize("field", ["files", "adapters"])
def test_a_model_is_not_made_from_files(field: str) -> None:
    body = model_responses.CreateBody.model_validate(
        {"model": "x", "from": "m", field: {"a": "sha256:0"}}
    )
    with pytest.raises(InvalidRequest, match=f"^{field}: .*pull"):
        model_responses.to_create(body)


def test_what_the_model_was_called_once_still_names_it() -> None:
    assert models.to_show(models.ShowBody(name="m")).model == "m"
    with pytest.raises(InvalidRequest, match=r"^model: required"):
        models.to_delete(models.DeleteBody())


def test_unknown_fields_are_accepted_and_named() -> None:
    body = OllamaChatBody(model="m", whatever=1, options={"mirostat": 2, "top_k": None})

    assert chatting(whatever=1) == chatting()
    assert ignored(body) == ("whatever", "options.mirostat")
