"""Encoder of `multipart/form-data` (RFC 7578); deterministic, does no I/O."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from workers.backends.http.client import EncodedBody


class FormFile(NamedTuple):
    """A file of a form."""

    name: str
    content: bytes
    mime_type: str


def form(fields: Mapping[str, str], files: Mapping[str, FormFile]) -> EncodedBody:
    """The encoded form; field and file names are constants of this package and not escaped."""
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{file.name}"\r\n'
        f"Content-Type: {file.mime_type}\r\n\r\n".encode()
        + file.content
        for name, file in files.items()
    ]
    # No content contains its own digest.
    boundary = "form-" + hashlib.sha256(b"".join(parts)).hexdigest()[:40]
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return EncodedBody(body, f"multipart/form-data; boundary={boundary}")
