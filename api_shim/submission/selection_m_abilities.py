"""What a request needs of its model, held against what is known of that model. Pure.

Only what a model is known not to do is refused: servers that tell nothing are given the benefit of
the doubt, and answer for themselves.
"""

from collections.abc import Collection, Iterable, Sequence

from api_shim.http.error_hints import NATIVE, Words
from api_shim.http.problems import Refusal
from contract.chat import ChatRequest, SchemaFormat
from contract.embeddings import EmbedRequest
from contract.errors_m_backend_errors import (
    NotSupported,
)
from contract.features import REMEDIES, Wish, wishes
from contract.jobs import AnyRequest
from contract.roster import ModelReport, ModelTrait


def needs(request: AnyRequest) -> dict[ModelTrait, str]:
    """The traits beyond its kind that a request needs, and the field that needs each."""
    match request:
        case ChatRequest():
            return _of_chat(request)
        case _:
            return {}


def _of_chat(request: ChatRequest) -> dict[ModelTrait, str]:
    found: dict[ModelTrait, str] = {}
    if request.tools:
        found["tools"] = "tools"
    if any(message.images for message in request.messages):
        found["vision"] = "messages"
    if request.think not in {"auto", "off"}:
        found["thinking"] = "think"
    if isinstance(request.response_format, SchemaFormat):
        found["schema"] = "response_format"
    return found


def missing(request: AnyRequest, reports: Iterable[ModelReport]) -> list[str]:
    """What the model cannot do of what is asked, in words; empty if it can, or if unknown."""
    every = list(reports)
    if not every:
        return []
    wrong = [
        f"it does not support {trait} ({field} needs that)"
        for trait, field in needs(request).items()
        if all(trait in report.lacks for report in every)
    ]
    dimension = max((report.dimension or 0) for report in every)
    wished = request.dimensions if isinstance(request, EmbedRequest) else None
    if wished and dimension and wished > dimension:
        wrong.append(f"dimensions is {wished}, and its vectors have {dimension}")
    return wrong


def ungranted(request: AnyRequest, grants: Collection[Wish] | None) -> list[str]:
    """What the backend has no word for and may not ignore, in words; empty if that is unknown."""
    if grants is None:
        return []
    return [
        f"{wish}: {REMEDIES[wish]}"
        for wish in wishes(request)
        if wish in REMEDIES and wish not in grants
    ]


def refuse(request: AnyRequest, model: str, wrong: Sequence[str], words: Words = NATIVE) -> None:
    """Raise a Refusal that says what the model cannot do, if there is anything."""
    if wrong:
        raise Refusal(
            NotSupported,
            f"The model {model[:80]} cannot do what is asked: {'; '.join(wrong)}. "
            f"Leave it out of the {request.kind} request, or choose another model "
            f"({words.abilities}).",
        )
