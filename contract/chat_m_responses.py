"""What `/v1/responses` keeps with a job, so that any shim can tell its answer in that API's words.

The job's record and log are all that is stored of a response; workers do not read this.
"""

from typing import Annotated, Any

from pydantic import Field

from contract.wire import Noun

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ResponseNotes(Noun):
    """What the request for a response said that is no business of a backend."""

    background: bool = False
    """Whether its caller did not wait for it."""
    stored: bool = True
    """Whether it can be looked up afterwards."""
    has_instructions: bool = False
    """Whether the first message is `instructions`: a response that goes on from this one has none
    of it."""
    chain: tuple[JobId, ...] = ()
    """Jobs of the responses that this one goes on from, the oldest first; what they were asked and
    have answered stands in the messages."""
    echo: dict[str, Any] = Field(default_factory=dict)
    """Fields of the request that the response repeats as they were."""
