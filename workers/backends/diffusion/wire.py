"""Request bodies of sd-server and A1111, and MIME types of their images. Does no I/O.

Sources: stable-diffusion.cpp `examples/server/api.md` and `common.cpp` (fields of the wrong type
are silently skipped there); stable-diffusion-webui `modules/api/models.py` and `api.py`.
"""

import re
import secrets
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from contract.errors import InvalidRequest
from contract.images import ImageRequest

_SEEDS: Final = 2**31
_DATA_URL: Final = re.compile(r"data:[^,]{0,200},")
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_MIME_TYPES: Final = {name: mime_type for mime_type, name in _FORMATS.items()}
_MAGIC: Final = (("iVBOR", "image/png"), ("/9j/", "image/jpeg"), ("UklGR", "image/webp"))
"""Prefixes of the base64 of each format."""


class DiffusionBody(NamedTuple):
    """The JSON of a request, and the fields of ours that it cannot express."""

    fields: dict[str, Any]
    ignored: tuple[str, ...]


def _any_seed() -> int:
    """A random seed: sd-server seeds from the clock in seconds, equal within one second."""
    return secrets.randbelow(_SEEDS)


def to_sdcpp(request: ImageRequest, formats: Collection[str], model: str) -> DiffusionBody:
    """The body of POST /sdcpp/v1/img_gen; `formats` are the server's, () if unknown."""
    ignored = _without_an_image(request)
    if request.model != model:
        ignored.append("model")  # it has one model, and ignores names
    if request.partial_images:
        ignored.append("partial_images")
    output_format = _FORMATS[request.mime_type]
    if formats and output_format not in formats:
        ignored.append("mime_type")
        output_format = "png"
    sampling: dict[str, Any] = {"sample_steps": request.steps}
    if request.guidance is not None:
        sampling["guidance"] = {"txt_cfg": request.guidance}
    fields = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "batch_count": request.count,
        "seed": _any_seed() if request.seed is None else request.seed,
        "sample_params": _given(sampling),
        "init_image": base64_of(request.image),
        "strength": request.strength if request.image else None,
        "output_format": output_format,
    }
    return DiffusionBody(_given(fields), tuple(ignored))


def to_a1111(request: ImageRequest, checkpoint: str, task: str) -> DiffusionBody:
    """The body of POST /sdapi/v1/txt2img, or of img2img for a request with an image."""
    ignored = _without_an_image(request)
    if request.mime_type != "image/png":
        ignored.append("mime_type")  # the format is a setting of the server (samples_format)
    fields = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        # Sequential: a batch needs the memory of all images at once.
        "n_iter": request.count,
        "batch_size": 1,
        "seed": _any_seed() if request.seed is None else request.seed,
        "steps": request.steps,
        "cfg_scale": request.guidance,
        "init_images": [base64_of(request.image)] if request.image else None,
        "denoising_strength": request.strength if request.image else None,
        "override_settings": {"sd_model_checkpoint": checkpoint},
        "force_task_id": task,
        "send_images": True,
        "save_images": False,
    }
    return DiffusionBody(_given(fields), tuple(ignored))


def base64_of(image: str | None) -> str | None:
    """The base64 of an image or data URL; raises InvalidRequest for an http(s) URL."""
    if image is None:
        return None
    if image.startswith(("http://", "https://")):
        raise InvalidRequest("image: give base64 or a data URL, not the address of an image")
    return _DATA_URL.sub("", image, count=1)


def mime_type_of(image: str, reported: str | None = None) -> str:
    """The MIME type of a base64 image: by its first bytes, else by the reported format name."""
    known = (mime_type for magic, mime_type in _MAGIC if image.startswith(magic))
    return next(known, _MIME_TYPES.get(reported or "", "image/png"))


def _without_an_image(request: ImageRequest) -> list[str]:
    """`strength` is ignored without an image."""
    return ["strength"] if request.strength is not None and not request.image else []


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, {}, "")}
