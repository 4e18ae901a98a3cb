"""Routes for images: generations (JSON) and edits (a form with an image)."""

import base64
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from api_shim.dependencies import DropIn
from api_shim.following.drop_in import DropInCall
from api_shim.http.forms import MULTIPART, open_form
from api_shim.http.json_body import JsonRoute, made_of_large
from api_shim.openai import images, schemas
from api_shim.openai.images import Family, ImageBody, ImageEvents, to_image
from api_shim.openai.request_fields import invalid_field, unsupported_field
from api_shim.openai.response_head import ResponseHead, json_response
from api_shim.openai.schemas import answers
from contract.images import ImageRequest

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
forms = APIRouter(prefix="/v1", tags=["openai"])

_MOST_FILES: Final = 17
"""OpenAI's limit of 16 images, and a mask."""
_FILES: Final = frozenset({"image", "image[]", "mask"})
_EXAMPLE: Final[Any] = {
    "example": {
        "summary": "From words",
        "value": {"model": "sd-turbo", "prompt": "a lighthouse", "size": "512x512"},
    }
}
_FILE: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "prompt", "image"],
    "properties": {**ImageBody.model_json_schema()["properties"], "image": _FILE, "mask": _FILE},
}


@router.post(
    "/images/generations",
    operation_id="openai_image",
    response_class=Response,
    responses=answers(schemas.ImageList, streams="event: image_generation.completed\ndata: {}\n\n"),
)
async def image(
    body: Annotated[ImageBody, Body(openapi_examples=_EXAMPLE)], call: DropIn
) -> Response:
    """Generate images from a prompt."""
    return await _made(call, body, to_image(body), "image_generation")


async def _made(
    call: DropInCall, body: ImageBody, request: ImageRequest, family: Family
) -> Response:
    record = await call.submit(request, body)
    head = ResponseHead.of(record)
    if body.stream:
        return call.stream(record, ImageEvents(head, request, family))
    result = await call.result(record)
    return json_response(images.response_body(head, request, result), call.headers)


@forms.post(
    "/images/edits",
    operation_id="openai_image_edit",
    response_class=Response,
    responses=answers(schemas.ImageList, streams="event: image_edit.completed\ndata: {}\n\n"),
    openapi_extra={"requestBody": {"required": True, "content": {MULTIPART: {"schema": _FORM}}}},
)
async def edit(request: Request, call: DropIn) -> Response:
    """Edit an image by a prompt; a form with the fields of a generation."""
    async with open_form(request, max_files=_MOST_FILES) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str) and value}
        try:
            body = ImageBody.model_validate(fields)
        except ValidationError as error:
            found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            raise RequestValidationError(found, body=fields) from None
        images = [*_files(form, "image"), *_files(form, "image[]")]
        if len(images) > 1:
            raise unsupported_field("image", "several images are not supported: send one")
        if not images:
            raise invalid_field("image", "required: a file")
        masks = [await mask.read() for mask in _files(form, "mask")]
        image = await images[0].read()
        image_request = await made_of_large(lambda: _with_files(body, image, masks))
        files = [name for name, value in form.multi_items() if isinstance(value, UploadFile)]
        call.add_ignored(name for name in files if name not in _FILES)
    return await _made(call, body, image_request, "image_edit")


def _files(form: FormData, name: str) -> list[UploadFile]:
    return [each for each in form.getlist(name) if isinstance(each, UploadFile)]


def _with_files(body: ImageBody, image: bytes, masks: list[bytes]) -> ImageRequest:
    mask = _base64(masks[0]) if masks else None
    return to_image(body, image=_base64(image), mask=mask)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
