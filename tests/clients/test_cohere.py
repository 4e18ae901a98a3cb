"""Cohere's own client, unmodified, against a running fleet.

Subjects: api_shim/cohere/routes.py, api_shim/cohere/errors.py, api_shim/cohere/embeds.py.
"""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import pytest
from cohere.core.api_error import ApiError
from support.fleet import Fleet, fleet

pytestmark = pytest.mark.client("cohere")

MODEL = "scripted-rerank"
QUERY = "when does the office open"
DOCUMENTS = ["the river is wide", "the office is open", "when does the office open"]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("cohere"), "scripted") as running:
        yield running


@pytest.fixture(scope="module")
def ask(at: Fleet) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(base_url=at.url, api_key="anything") as client:
        yield client


@pytest.mark.feature("rerank")
def test_documents_are_ordered_by_their_relevance(ask: cohere.ClientV2) -> None:
    answer = ask.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2)

    assert [(each.index, each.relevance_score > 0.3) for each in answer.results] == [
        (2, True),
        (1, True),
    ]
    assert answer.meta is not None
    assert answer.meta.tokens is not None
    assert answer.meta.tokens.input_tokens == 28


@pytest.mark.feature("rerank")
def test_the_older_client_gets_its_documents_back(at: Fleet) -> None:
    documents = [{"title": "a river", "text": "wide"}, {"title": "office", "text": "open"}]

    with cohere.Client(base_url=at.url, api_key="anything") as older:
        answer = older.rerank(
            model=MODEL,
            query="office open",
            documents=documents,
            rank_fields=["title", "text"],
            return_documents=True,
        )

    assert [each.index for each in answer.results] == [1, 0]
    assert answer.results[0].document is not None
    assert answer.results[0].document.text == "open"


@pytest.mark.feature("rerank")
async def test_many_reranks_run_at_once(at: Fleet) -> None:
    async with cohere.AsyncClientV2(base_url=at.url, api_key="anything") as ask:
        answers = await asyncio.gather(
            *(ask.rerank(model=MODEL, query=str(n), documents=["x", str(n)]) for n in range(20))
        )

    assert [answer.results[0].index for answer in answers] == [1] * 20


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "scripted-rerang"}, 404, "scripted-rerank"),
        ({"model": "scripted-echo"}, 400, "not for rerank"),
        ({"documents": []}, 400, "documents"),
        ({"top_n": 0}, 400, "top_n"),
        ({"query": ""}, 400, "query"),
        ({"documents": ["x" * 300_000]}, 400, "documents.0"),
    ],
)
@pytest.mark.feature("rerank", "errors")
def test_a_wrong_request_names_what_is_wrong(
    ask: cohere.ClientV2, fields: dict[str, Any], status: int, words: str
) -> None:
    given = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **fields}
    with pytest.raises(ApiError) as caught:
        ask.rerank(**given)

    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


@pytest.mark.feature("embeddings")
def test_texts_become_vectors_of_the_types_that_were_asked_for(ask: cohere.ClientV2) -> None:
    texts = ["one two", "three"]
    answer = ask.embed(
        model="scripted-embed",
        output_dimension=20,
        input_type="search_document",
        texts=texts,
        embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"],
    )
    found = answer.embeddings
    floats = np.array(found.float_, np.float32)

    assert answer.texts == texts
    assert floats.shape == (2, 20)
    assert found.base64 is not None
    assert [base64.b64decode(row) for row in found.base64] == [row.tobytes() for row in floats]
    assert np.array(found.ubinary).tolist() == np.packbits(floats > 0, axis=1).tolist()
    assert (np.array(found.ubinary) - 128).tolist() == found.binary
    assert (np.array(found.uint8) - 128).tolist() == found.int8
    for small, row in zip(np.array(found.int8), floats, strict=True):
        cosine = small @ row / np.linalg.norm(small) / np.linalg.norm(row)
        assert cosine > 0.999


@pytest.mark.feature("embeddings")
def test_vectors_are_floats_unless_asked_otherwise_and_may_be_shorter(ask: cohere.ClientV2) -> None:
    given = [{"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    answer = ask.embed(
        model="scripted-embed", input_type="clustering", inputs=given, output_dimension=5
    )

    assert [len(row) for row in answer.embeddings.float_ or ()] == [5]
    assert answer.embeddings.int8 is None


@pytest.mark.feature("embeddings", "errors")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input_type": "poetry"}, "input_type"),
        ({"texts": []}, "texts"),
        ({"texts": ["a"] * 2049}, "texts"),
        ({"truncate": "START"}, "truncate"),
        ({"embedding_types": ["int4"]}, "embedding_types"),
        ({"images": ["data:image/png;base64,AAAA"]}, "images"),
        ({"output_dimension": 0}, "output_dimension"),
        ({"model": MODEL}, "not for embed"),
    ],
)
def test_a_wrong_embedding_names_what_is_wrong(
    ask: cohere.ClientV2, fields: dict[str, Any], words: str
) -> None:
    given = {"model": "scripted-embed", "input_type": "search_query", "texts": ["a"], **fields}
    with pytest.raises(ApiError) as caught:
        ask.embed(**given)

    assert caught.value.status_code == 400
    assert words in caught.value.body["message"]


@pytest.mark.parametrize("asked", [{"encoding_format": "ubinary"}, {"embedding_type": "ubinary"}])
def test_openais_surface_has_small_types_and_names_a_task_that_has_no_prompt(
    at: Fleet, asked: dict[str, str]
) -> None:
    body = {"model": "scripted-embed", "input": "a b", **asked, "task": "retrieval.query"}
    answer = httpx.post(f"{at.url}/v1/embeddings", json=body)
    wrong = httpx.post(f"{at.url}/v1/embeddings", json={**body, "task": "poetry"})

    assert len(answer.json()["data"][0]["embedding"]) == 8
    assert answer.headers["x-fleet-ignored"] == "task"
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "task")


def test_pairs_are_scored_in_their_order(at: Fleet) -> None:
    body = {"model": MODEL, "text_1": ["a b", "c"], "text_2": ["a b", "d"]}
    paired = httpx.post(f"{at.url}/score", json=body).json()
    one = httpx.post(f"{at.url}/v1/score", json={**body, "text_1": "d"}).json()
    wrong = httpx.post(f"{at.url}/score", json={**body, "text_2": ["a"]})

    assert [(each["index"], each["score"]) for each in paired["data"]] == [(0, 1.0), (1, 0.0)]
    assert [each["score"] for each in one["data"]] == [0.0, 1.0]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "text_1")
