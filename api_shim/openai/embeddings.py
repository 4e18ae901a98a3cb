"""POST /v1/embeddings: the request and the response. Pure.

Source: openai/openai-openapi, CreateEmbeddingRequest and CreateEmbeddingResponse. The `openai`
client requests base64 by default: little-endian float32, as in the contract.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from api_shim.following.piecewise import items_in_pieces
from api_shim.openai.request_fields import OpenAIRequest, build_request, invalid_field
from api_shim.openai.response_head import ResponseHead
from contract.embeddings import TASK_WORDS, EmbedRequest, Task
from contract.json_lines import json_line
from contract.quantization import RowType, encoded_rows
from contract.requests import Word
from contract.result import Result

Ids = Annotated[list[int], Field(min_length=1)]
Given = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def in_one_shape(given: Any, most: int) -> Any:
    """The input, if it has one of the accepted forms and at most `most` texts.

    Raises PydanticCustomError: one error, where a union would report one for each of its members.
    """
    if isinstance(given, str):
        return given
    kinds = [_kind(each) for each in given] if isinstance(given, list) else [None]
    wrong = next((at for at, it in enumerate(kinds) if it is None or it != kinds[0]), None)
    if wrong is not None:
        raise PydanticCustomError(
            "input_type",
            "must be one text, a list of texts, a list of token ids, or a list of such lists{item}",
            {"item": f"; item {wrong} is none of these" if isinstance(given, list) else ""},
        )
    if kinds[:1] != ["id"] and len(kinds) > most:
        raise PydanticCustomError(
            "too_long",
            "has {held} texts, and a request may have {max_length}: send several requests",
            {"held": len(kinds), "max_length": most},
        )
    return given


def _kind(item: Any) -> str | None:
    if isinstance(item, str):
        return "text"
    if isinstance(item, list):
        return "ids" if item and all(_kind(each) == "id" for each in item) else None
    return "id" if isinstance(item, int) and not isinstance(item, bool) else None


def texts(given: Given) -> tuple[str, ...]:
    """The texts of an input; empty if it is token ids."""
    if isinstance(given, str):
        return (given,)
    return tuple(each for each in given if isinstance(each, str))


def ids(given: Given) -> tuple[tuple[int, ...], ...]:
    """The token ids of each text; empty if the input is texts."""
    one = tuple(each for each in given if isinstance(each, int))
    if one:
        return (one,)
    return tuple(tuple(each) for each in given if not isinstance(each, int | str))


MOST_INPUTS: Final = 2048


class EmbeddingBody(OpenAIRequest):
    """Texts to embed."""

    input: Annotated[
        str
        | Annotated[list[str], Field(max_length=MOST_INPUTS)]
        | Ids
        | Annotated[list[Ids], Field(max_length=MOST_INPUTS)],
        BeforeValidator(partial(in_one_shape, most=MOST_INPUTS)),
    ]
    """One text or up to 2,048; or token ids, where the backend accepts them."""
    dimensions: int | None = None
    encoding_format: Annotated[
        RowType, Field(validation_alias=AliasChoices("encoding_format", "embedding_type"))
    ] = "float"
    """`int8`, `uint8`, `binary` and `ubinary` are additions; Jina's clients call the field
    `embedding_type`.
    """
    task: Annotated[
        Word | None, Field(validation_alias=AliasChoices("task", "input_type", "task_type"))
    ] = None
    """What the texts are for, an addition: `query`, `document`, also in the words of Cohere and
    Jina.
    """
    normalize: Annotated[
        bool | None, Field(validation_alias=AliasChoices("normalize", "normalized"))
    ] = None
    """Whether each vector is scaled to length 1, an addition."""


def to_embed(body: EmbeddingBody) -> EmbedRequest:
    """The request; raises Refusal for what is not supported."""
    if not body.input:
        raise invalid_field("input", "must not be empty")
    return build_request(
        EmbedRequest,
        body,
        input=texts(body.input),
        tokens=ids(body.input),
        dimensions=body.dimensions,
        task=_task(body.task),
        normalize=body.normalize,
    )


def _task(word: str | None) -> Task | None:
    """The task that a word means; raises Refusal for an unknown one."""
    found = None if word is None else TASK_WORDS.get(word.lower())
    if word is not None and found is None:
        raise invalid_field("task", f"{word[:40]!r} is none of {', '.join(TASK_WORDS)}")
    return found


def response_body(head: ResponseHead, result: Result, encoding: RowType) -> dict[str, Any]:
    """The response as a value; `pieces` encodes the same."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": row}
            for at, row in enumerate(_rows(result, encoding))
        ],
        **_end(head, result),
    }


def pieces(head: ResponseHead, result: Result, encoding: RowType) -> Iterator[bytes]:
    """The response's JSON, some rows at a time: 2,048 vectors are tens of megabytes."""
    rows = (
        b'{"object":"embedding","index":%d,"embedding":%s}' % (at, _encoded(row))
        for at, row in enumerate(_rows(result, encoding))
    )
    yield b'{"object":"list","data":['
    yield from items_in_pieces(rows)
    yield b"]," + json_line(_end(head, result))[1:]


def _encoded(row: str | list[float] | list[int]) -> bytes:
    return b'"%s"' % row.encode() if isinstance(row, str) else json_line(row)


def _end(head: ResponseHead, result: Result) -> dict[str, Any]:
    tokens = result.usage.prompt_tokens if result.usage else None
    usage = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"model": head.model, "usage": usage}


def _rows(result: Result, encoding: RowType) -> Iterator[str | list[float] | list[int]]:
    found = result.embeddings
    return encoded_rows(found.data, found.dimension, encoding) if found else iter(())
