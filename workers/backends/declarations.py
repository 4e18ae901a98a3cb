"""Configured facts about models and endpoints that their servers do not report.

Tables of fleet.toml:

    [backends.box.models."qwen3-vl"]
    traits = ["chat", "vision", "tools"]
    context_length = 32768

    [backends.box.models."nomic-embed-text".prompts]
    query = "search_query: "
    document = "search_document: "

    [[backends.farm.endpoints]]
    url = "http://10.0.0.5:8000/v1"
    key = "..."
    id = "bge-m3"
    label = "Search vectors"
    capabilities = ["embed"]
    dimension = 1024
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from contract.embeddings import Task
from contract.models import ModelName
from contract.roster import ModelTrait
from contract.wire import WireModel

Count = Annotated[int, Field(ge=1)]


class DeclaredModel(WireModel):
    """Facts about one model; None keeps what the server reports."""

    traits: tuple[ModelTrait, ...] | None = None
    lacks: tuple[ModelTrait, ...] | None = None
    """What it cannot do: a job that needs it is refused."""
    context_length: Count | None = None
    max_output_tokens: Count | None = None
    dimension: Count | None = None
    prompts: dict[Task, Annotated[str, Field(max_length=2000)]] | None = None
    """What is put before each text that is embedded for a task."""


class DeclaredEndpoint(WireModel):
    """One OpenAI-compatible address that serves one model."""

    url: str
    """Base that `/chat/completions` is appended to, without credentials."""
    id: ModelName
    """The model's name at that address."""
    label: Annotated[str, Field(max_length=256)] = ""
    """The name that clients use; without it, `id`. Two endpoints of one `id` need labels."""
    key: SecretStr | None = None
    thinking: Literal["reasoning_content", "reasoning"] | None = None
    """The field for the reasoning of assistant messages; without it reasoning is not sent."""
    capabilities: tuple[ModelTrait, ...] = ()
    dimension: Count | None = None
    context_length: Count | None = None
    """In the model's own tokens."""
    max_output_tokens: Count | None = None
    token_modifier: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Tokens of this model per token that clients count with their own tokenizer. The reported
    context is `context_length` divided by it; usage is passed on unchanged."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("url holds a key; write it into the field key")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url must look like http://host:port/v1")
        return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"

    @property
    def name(self) -> str:
        """The model name that clients use."""
        return self.label or self.id
