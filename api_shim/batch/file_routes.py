"""Files under /v1/files: uploads (file_upload.py), lists, and streamed downloads.

Source: openai/openai-openapi, OpenAIFile; openai/openai-python, `resources/files.py`. A file
expires after FLEET_FILE_TTL_S unless `expires_after` differs; at OpenAI some never expire.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from api_shim.batch.file_upload import Upload
from api_shim.batch.http_responses import Download, FileDeleted, listing, refusals
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.openai.request_fields import invalid_field
from api_shim.submission.ignored_fields import HEADER, header_value
from contract.batches import FILE_ID, FilePage, Purpose, StoredFile
from contract.errors import FleetError, RelayFull
from relay.files import Order, no_file, stored_name

_AGAIN_S: Final = 0.25
_PATIENCE_S: Final = 3.0
"""Redis looks once a second whether its disk has room again."""


router = APIRouter(prefix="/v1/files", tags=["openai"])

FileId = Annotated[str, Path(description="`file-` and 32 hexadecimal digits.")]
_LONGEST_PAGE: Final = 10_000
_LIFETIME_S: Final = (3600, 30 * 86400)
_FIELDS: Final = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})
_purpose: Final[TypeAdapter[Purpose]] = TypeAdapter(Purpose)


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """A page of files; the next page begins `after` the last one."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileForm(BaseModel):
    """The fields of an upload."""

    purpose: Purpose
    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    expires_after_anchor: Annotated[
        Literal["created_at"] | None, Field(alias="expires_after[anchor]")
    ] = None
    expires_after_seconds: Annotated[
        int | None, Field(alias="expires_after[seconds]", ge=_LIFETIME_S[0], le=_LIFETIME_S[1])
    ] = None


_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": FileForm.model_json_schema(),
                "examples": {
                    "batch": {
                        "summary": "The input of a batch",
                        "value": {"purpose": "batch", "file": "<bytes>"},
                    }
                },
            }
        },
    }
}


@router.post(
    "",
    operation_id="openai_create_file",
    response_model=FileObject,
    responses=refusals(400, 413, 415, 503),
    openapi_extra=_FORM,
)
async def create(request: Request, dependencies: Injected, caller: Caller) -> Response:
    """Upload a file of up to FLEET_MAX_FILE_BYTES; it is streamed, never held in memory."""
    file_id = f"file-{uuid4().hex}"
    name = stored_name(file_id)
    upload = Upload(dependencies, name, caller.name)
    try:
        await upload.take(request)
        purpose, ttl_s = _parse_fields(upload.fields, dependencies.settings.file_ttl_s)
    except BaseException:
        await _discard(dependencies, name)
        raise
    file = StoredFile(
        id=file_id,
        tenant=caller.name,
        filename=upload.filename,
        purpose=purpose,
        size_bytes=upload.size_bytes,
        expires_at=0.0,
    )
    left_out = [name for name in upload.fields if name not in _FIELDS]
    return _answer(await dependencies.files.create(file, ttl_s=ttl_s), left_out)


async def _discard(dependencies: Dependencies, name: str) -> None:
    """Delete what a failed upload leaves behind; the sweep does if this cannot."""
    with suppress(FleetError):
        await dependencies.files.keep(name, 0)
    with suppress(FleetError):
        await dependencies.storage.delete(name)
        await dependencies.files.forget(name)


def _parse_fields(fields: dict[str, str], ttl_s: float) -> tuple[Purpose, float]:
    try:
        purpose = _purpose.validate_python(fields.get("purpose"))
    except ValidationError as error:
        raise invalid_field("purpose", error.errors()[0]["msg"]) from None
    if purpose == "batch_output":
        raise invalid_field(
            "purpose", "batch_output is reserved for results of batches: upload the file as batch"
        )
    wished = fields.get("expires_after[seconds]")
    if wished is None:
        return purpose, ttl_s
    if fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise invalid_field("expires_after.anchor", "must be created_at")
    least, most = _LIFETIME_S
    if not (wished.isdecimal() and len(wished) < 10 and least <= int(wished) <= most):  # noqa: PLR2004 - digits
        raise invalid_field("expires_after.seconds", f"must be from {least} to {most}")
    return purpose, float(wished)


@router.get(
    "",
    operation_id="openai_list_files",
    response_model=FileList,
    responses=refusals(400, 404, 503),
)
async def page(
    dependencies: Injected,
    caller: Caller,
    *,
    purpose: Purpose | None = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = _LONGEST_PAGE,
    after: Annotated[str | None, Query(description="Id of the last file of a page.")] = None,
    order: Order = "desc",
) -> Response:
    """List the caller's files by creation time."""
    if after is not None:
        _checked(after)
    found: FilePage = await dependencies.files.page(
        caller, purpose=purpose, limit=limit, after=after, order=order
    )
    objects = [_object(file) for file in found.files]
    return listing(FileList, objects, has_more=found.has_more)


@router.get(
    "/{file_id}",
    operation_id="openai_get_file",
    response_model=FileObject,
    responses=refusals(404, 503),
)
async def get(file_id: FileId, dependencies: Injected, caller: Caller) -> Response:
    """Get a file's record."""
    return _answer(await dependencies.files.get_for_tenant(_checked(file_id), caller))


@router.get(
    "/{file_id}/content",
    operation_id="openai_get_file_content",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "Its bytes."},
        **refusals(404, 503),
    },
)
async def content(file_id: FileId, dependencies: Injected, caller: Caller) -> Response:
    """Download a file; it is streamed, never held in memory."""
    file = await dependencies.files.get_for_tenant(_checked(file_id), caller)
    download = Download(
        dependencies.storage.read(stored_name(file.id)), file, dependencies.open_calls
    )
    await download.begin()
    return download


@router.delete(
    "/{file_id}",
    operation_id="openai_delete_file",
    response_model=FileDeleted,
    responses=refusals(404, 503),
)
async def delete(file_id: FileId, dependencies: Injected, caller: Caller) -> Response:
    """Delete a file; a batch that already reads it continues."""
    file = await dependencies.files.get_for_tenant(_checked(file_id), caller)
    try:
        await dependencies.files.delete(file)
    except RelayFull as full:
        await _delete_on_full_disk(dependencies, file, full)
    dependencies.files_deleted.set()
    gone = FileDeleted(id=file.id, object="file")
    return Response(gone.model_dump_json(), media_type="application/json")


async def _delete_on_full_disk(
    dependencies: Dependencies, file: StoredFile, full: RelayFull
) -> None:
    """Delete the bytes first: that may make the room that Redis waits for. Raises RelayFull."""
    name = stored_name(file.id)
    if not await dependencies.files.is_held(name):
        await dependencies.storage.delete(name)
    for _ in range(round(_PATIENCE_S / _AGAIN_S)):
        await asyncio.sleep(_AGAIN_S)
        try:
            return await dependencies.files.delete(file)
        except RelayFull as again:
            full = again
    raise full


def _checked(file_id: str) -> str:
    """A valid file id; raises UnknownFile, so that nothing else becomes a Redis key."""
    if not FILE_ID.match(file_id):
        raise no_file(file_id)
    return file_id


def _object(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        expires_at=int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


def _answer(file: StoredFile, left_out: Sequence[str] = ()) -> Response:
    headers = {HEADER: header_value(left_out)} if left_out else {}
    data = _object(file).model_dump_json()
    return Response(data, headers=headers, media_type="application/json")
