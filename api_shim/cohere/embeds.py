"""POST /v2/embed: the request and the response. Pure.

Source: cohere-ai/cohere-python `v2/raw_client.py` (embed), `types/embed_by_type_response.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from api_shim.bodies.joined_texts import joined_texts, taken
from api_shim.cohere.errors import named, wrong_field
from api_shim.following.piecewise import items_in_pieces
from api_shim.submission.ignored_fields import LenientModel
from contract.embeddings import TASK_WORDS, EmbedRequest
from contract.errors import NotSupported
from contract.json_lines import json_line, one_line
from contract.quantization import RowType, encoded_rows
from contract.requests import Word
from contract.result import Embeddings, Result
from contract.wire import json_pieces

MOST_TEXTS: Final = 2048
"""As of /v1/embeddings; at Cohere 96."""
_NO_ROWS: Final = Embeddings(count=0, dimension=1, data="")
_NAMES: Final = {"input": "texts", "dimensions": "output_dimension", "task": "input_type"}


class EmbedContentBody(LenientModel):
    """A part of an input."""

    type: Word
    text: str = ""


class EmbedInputBody(LenientModel):
    """An input of several parts."""

    content: list[EmbedContentBody]


class CohereEmbedBody(LenientModel):
    """Texts to embed."""

    model: Word
    """As listed by `GET /v1/models`."""
    input_type: Word | None = None
    """What the texts are for: `search_query`, `search_document`, `classification`, `clustering`."""
    texts: tuple[str, ...] = ()
    inputs: list[EmbedInputBody] = Field(default_factory=list)
    """Instead of `texts`: parts of type `text`, a line each."""
    images: tuple[Any, ...] = ()
    output_dimension: int | None = None
    embedding_types: tuple[RowType, ...] = ("float",)
    truncate: Literal["NONE", "START", "END"] = "END"
    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""


def to_embed(body: CohereEmbedBody) -> EmbedRequest:
    """The request; the body's inputs are used up. Raises Refusal for what is not supported."""
    texts = _texts(body)
    task = None
    if body.input_type is not None:
        task = TASK_WORDS.get(body.input_type.lower())
        if task is None:
            known = ", ".join(TASK_WORDS)
            raise wrong_field("input_type", f"{body.input_type[:40]!r} is none of {known}")
    if body.truncate == "START":
        raise wrong_field("truncate", "START is not supported: END or NONE", NotSupported)
    if not body.embedding_types:
        raise wrong_field("embedding_types", "must name one type at least")
    fields: dict[str, Any] = {
        "backend": body.backend,
        "dimensions": body.output_dimension,
        "task": task,
        "truncate": False if body.truncate == "NONE" else None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return EmbedRequest(model=body.model, input=texts, **given)
    except ValidationError as error:
        raise named(error, _NAMES) from None


def _texts(body: CohereEmbedBody) -> tuple[str, ...]:
    parts = [part for each in body.inputs for part in each.content]
    if body.images or any(part.type != "text" for part in parts):
        raise wrong_field(
            "images" if body.images else "inputs",
            "images are not supported: send texts",
            NotSupported,
        )
    if bool(body.texts) == bool(body.inputs):
        raise wrong_field("texts", "send texts, or inputs of texts, one at least and not both")
    del parts
    found = body.texts or tuple(map(_joined, taken(body.inputs)))
    if len(found) > MOST_TEXTS:
        raise wrong_field(
            "texts", f"has {len(found)}, and a request may have {MOST_TEXTS}: send several requests"
        )
    return found


def _joined(given: EmbedInputBody) -> str:
    return joined_texts([part.text for part in taken(given.content)], "\n")


def embed_pieces(
    job_id: str, request: EmbedRequest, types: Sequence[RowType], result: Result
) -> Iterator[bytes]:
    """The response's JSON, some rows at a time."""
    yield b'{"response_type":"embeddings_by_type","id":"%s","embeddings":{' % job_id.encode()
    found = result.embeddings or _NO_ROWS
    for number, type in enumerate(dict.fromkeys(types)):
        yield b'%s"%s":[' % (b"," if number else b"", type.encode())
        yield from items_in_pieces(map(json_line, encoded_rows(found.data, found.dimension, type)))
        yield b"]"
    begun = b"},"
    for piece in map(one_line, json_pieces(_end(request, result))):
        yield begun + piece.removeprefix(b"{") if begun else piece
        begun = b""


def _end(request: EmbedRequest, result: Result) -> dict[str, Any]:
    meta: dict[str, Any] = {"api_version": {"version": "2"}}
    if result.usage is not None:
        tokens = result.usage.prompt_tokens
        meta |= {"billed_units": {"input_tokens": tokens}, "tokens": {"input_tokens": tokens}}
    return {"texts": request.input, "meta": meta}
