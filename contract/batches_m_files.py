"""A file that a caller keeps: its record. The bytes lie in the storage (FLEET_FILES_URL)."""

import re
from typing import Final, Literal

from contract.wire import Noun

Purpose = Literal[
    "assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"
]
"""What a file is for. `batch` can be the input of a batch; `batch_output` is what one makes."""

FILE_ID: Final = re.compile(r"^file-[0-9a-f]{32}$")


class File(Noun):
    """A file's record; times are unix seconds by Redis's clock."""

    id: str
    """`file-` and 32 hexadecimal digits."""
    tenant: str
    filename: str
    purpose: Purpose
    size_bytes: int
    created_at: float = 0.0
    expires_at: float
    """When it is deleted."""


class FilePage(Noun):
    """Some files of a tenant in the order that was asked for."""

    files: tuple[File, ...]
    has_more: bool
