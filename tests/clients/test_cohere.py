"""Cohere's own client, unmodified, against a running fleet.

Subjects: api_shim/cohere/routes.py, api_shim/cohere/errors.py.
"""

import asyncio
from collections.abc import Iterator

import cohere
import httpx
import pytest
from cohere.core.api_error import ApiError
from support.fleet import Fleet, fleet

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


def test_documents_are_ordered_by_their_relevance(ask: cohere.ClientV2) -> None:
    answer = ask.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2)

    assert [(each.index, each.relevance_score > 0.3) for each in answer.results] == [
        (2, True),
        (1, True),
    ]
    assert answer.meta is not None
    assert answer.meta.tokens is not None
    assert answer.meta.tokens.input_tokens == 28


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
def test_a_wrong_request_names_what_is_wrong(
    ask: cohere.ClientV2, fields: dict[str, object], status: int, words: str
) -> None:
    given = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **fields}
    with pytest.raises(ApiError) as caught:
        ask.rerank(**given)  # type: ignore[arg-type]

    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


def test_pairs_are_scored_in_their_order(at: Fleet) -> None:
    body = {"model": MODEL, "text_1": ["a b", "c"], "text_2": ["a b", "d"]}
    paired = httpx.post(f"{at.url}/score", json=body).json()
    one = httpx.post(f"{at.url}/v1/score", json={**body, "text_1": "d"}).json()
    wrong = httpx.post(f"{at.url}/score", json={**body, "text_2": ["a"]})

    assert [(each["index"], each["score"]) for each in paired["data"]] == [(0, 1.0), (1, 0.0)]
    assert [each["score"] for each in one["data"]] == [0.0, 1.0]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "text_1")
