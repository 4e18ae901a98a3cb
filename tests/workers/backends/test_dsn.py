"""A backend in one line is read, or refused without showing its key."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.errors import (
    NotSupported,
)
from workers.backend_registry import FACTORIES, build
from workers.backends.dsn import BackendConfig, DsnError, from_environment, parse
from workers.backends.protocols import Backend
from workers.config import embed_requests_of, slots_of

PIECES = st.sampled_from([*"ollama", "openai", "://", "@", ":", "/", "?", "#", "[", "]", "%", "9"])


@pytest.mark.parametrize(
    ("dsn", "type", "url"),
    [
        ("ollama://box", "ollama", "http://box:11434"),
        ("ollama://box:1/", "ollama", "http://box:1"),
        ("ollama://", "ollama", "http://127.0.0.1:11434"),
        ("ollama+https://ollama.com", "ollama", "https://ollama.com"),
        ("llamacpp://box", "llamacpp", "http://box:8080/v1"),
        ("lmstudio://box", "lmstudio", "http://box:1234/v1"),
        ("llama-swap://box", "llamaswap", "http://box:8080/v1"),
        ("llamacpp-router://box", "llamacpp-router", "http://box:8080/v1"),
        ("vllm://[::1]", "vllm", "http://[::1]:8000/v1"),
        ("openai://key@", "openai", "https://api.openai.com/v1"),
        ("openai+http://key@127.0.0.1:9000/v1", "openai", "http://127.0.0.1:9000/v1"),
        ("openai-compatible://k@host/api/v2", "generic", "https://host/api/v2"),
        ("gemini://key@", "gemini", "https://generativelanguage.googleapis.com/v1beta"),
        ("gemini+http://key@127.0.0.1:9000", "gemini", "http://127.0.0.1:9000/v1beta"),
        ("vertex://project@eu", "vertex", "https://aiplatform.eu.rep.googleapis.com/v1beta1"),
        ("scripted://", "scripted", ""),
        ("local:///models/mini%20lm", "local", "/models/mini lm"),
    ],
)
def test_a_dsn_names_type_and_address(dsn: str, type: str, url: str) -> None:
    config = parse("LLM_BOX", dsn)

    assert ("box", type, url) == (config.name, config.type, config.url)


@pytest.mark.parametrize(
    ("dsn", "urls"),
    [
        ("ollama://a:1,b:2", ("http://a:1", "http://b:2")),
        ("ollama+https://k%2Cey@a,b:2?slots=3", ("https://a", "https://b:2")),
        ("llamacpp://a,[::1]:9", ("http://a:8080/v1", "http://[::1]:9/v1")),
        ("ollama://a:1", ()),
        ("local:///models/a,b", ()),
    ],
)
def test_commas_separate_equivalent_addresses(dsn: str, urls: tuple[str, ...]) -> None:
    config = parse("LLM_BOX", dsn)

    assert config.urls == urls
    assert list(config.each) == list(urls or (config.url,))


def test_every_address_has_the_key_and_the_slots_of_all() -> None:
    config = parse("LLM_BOX", "openai-compatible+http://k3y@a,b/v1?slots=3")
    table = BackendConfig(
        name="box", type="generic", urls=("http://a/v1", "http://b/v1"), key="k3y", slots=3
    )

    assert config == table
    assert {"k3y"} == {each.key.get_secret_value() for each in config.each.values() if each.key}
    assert {3} == {each.slots_for("chat") for each in config.each.values()}


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("ollama://a,a", "twice"),
        ("ollama://k3y@a,,b", "empty host"),
        ("ollama://k3y@a,", "empty host"),
        ("scripted://a,b", "no list of addresses"),
        ("vertex://p:k3y@eu,us", "no list of addresses"),
        (f"ollama://{','.join(f'box{n}' for n in range(33))}", "more than 32"),
    ],
)
def test_an_invalid_list_of_addresses_is_refused(dsn: str, words: str) -> None:
    with pytest.raises(DsnError, match=words) as refused:
        parse("LLM_BOX", dsn)

    assert "k3y" not in str(refused.value)


def test_a_table_has_its_addresses_in_one_place() -> None:
    with pytest.raises(ValidationError, match="urls: write all addresses there"):
        BackendConfig(name="box", type="ollama", url="http://c", urls=("http://a", "http://b"))


def test_options_follow_the_question_mark() -> None:
    config = parse("LLM_GPU_1", "vllm://k%2Fe%40y@h?slots=4&slots.embed=2&idle_s=60")

    assert config.key is not None
    assert config.key.get_secret_value() == "k/e@y"
    assert (config.slots_for("chat"), config.slots_for("embed"), config.idle_s) == (4, 2, 60.0)
    assert config.name == "gpu_1"


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("ollama", "looks like"),
        ("olama://s3cret@h", "no such type"),
        ("ollama+ftp://s3cret@h", "http or https"),
        ("openai://s3cret@h:99999", "host or port"),
        ("openai://s3cret/more@h", "%2F"),
        ("openai://s3cret@h#x", "percent-encoded"),
        ("openai://s3?cret@h", "percent-encoded"),
        ("s3cret://h", "no such type"),
        ("openai://s3cret@h?slots=many", "slots"),
        ("openai://s3cret@h?speed=9", "no such option"),
        ("generic://", "name a host"),
        ("local://", "folder"),
    ],
)
def test_an_error_names_the_variable_and_the_remedy_and_no_key(dsn: str, words: str) -> None:
    with pytest.raises(DsnError) as caught:
        parse("LLM_BOX", dsn)

    assert words in str(caught.value)
    assert str(caught.value).startswith("LLM_BOX: ")
    assert "s3cret" not in str(caught.value)


@given(st.lists(PIECES).map("".join))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    try:
        config = parse("LLM_X", text)
    except DsnError:
        return

    assert config.name == "x"


@pytest.mark.parametrize(
    ("type", "given", "url"),
    [
        ("llamacpp", "http://box:9000", "http://box:9000/v1"),
        ("llama-swap", "http://box:9000", "http://box:9000/v1"),
        ("llamacpp", "http://box:9000/v1/", "http://box:9000/v1"),
        ("ollama", "", "http://127.0.0.1:11434"),
        ("openai", "", "https://api.openai.com/v1"),
    ],
)
def test_a_table_may_omit_the_defaults_of_its_type(type: str, given: str, url: str) -> None:
    assert url == BackendConfig.model_validate({"name": "x", "type": type, "url": given}).url


@pytest.mark.parametrize("url", ["http://s3cret@box", "box:9000", "ftp://box"])
def test_a_table_with_a_key_in_its_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url") as caught:
        BackendConfig.model_validate({"name": "x", "type": "vllm", "url": url})

    assert "s3cret" not in str(caught.value.errors(include_input=False))


def test_no_representation_shows_the_key() -> None:
    config = parse("LLM_BOX", "openai://s3cret@h")

    assert "s3cret" not in f"{config!r} {config} {config.model_dump_json()}"


def test_the_environment_names_backends() -> None:
    configs = from_environment(
        {
            "LLM_BOX": "ollama://box",
            "LLM_MODEL": "another program's",
            "OLLAMA_URL": "box2:11434",
            "LMSTUDIO_URL": "https://k@studio",
            "PATH": "x://y",
        }
    )

    assert {"box", "ollama", "lmstudio"} == {config.name for config in configs}
    assert "https://studio/v1" in {config.url for config in configs}


def test_two_variables_of_one_name_are_an_error() -> None:
    with pytest.raises(DsnError, match="OLLAMA_URL"):
        from_environment({"LLM_OLLAMA": "ollama://a", "OLLAMA_URL": "http://b"})


ELSEWHERE = {"local", "vertex", "llama", "openvino", "endpoints"}
"""Types that need an extra or more than an address; their own tests build them."""


@pytest.mark.parametrize("type", sorted(set(FACTORIES) - ELSEWHERE))
async def test_every_type_can_be_built_without_a_connection(type: str) -> None:
    backend = build(BackendConfig(name="box", type=type, url="http://127.0.0.1:1/v1"))

    assert isinstance(backend, Backend)
    assert backend.name == "box"
    await backend.aclose()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workers.backends.in_process.onnx", None)

    with pytest.raises(NotSupported, match=r"llm-fleet\[local-embed\]"):
        build(parse("LLM_E", "local:///models/x"))


def test_packed_embed_jobs_are_more_than_the_requests_that_they_become() -> None:
    box, tight = (
        parse("LLM_BOX", "ollama://h?slots=4"),
        parse("LLM_BOX", "ollama://h?slots.embed=2"),
    )
    many = parse("LLM_BOX", "vllm://h")

    assert [slots_of(each, "embed", packs=True) for each in (box, tight, many)] == [64, 2, 64]
    assert [embed_requests_of(each) for each in (box, tight, many)] == [4, 2, 64]
    assert slots_of(box, "embed") == 4
    assert slots_of(box, "chat", packs=True) == 4
