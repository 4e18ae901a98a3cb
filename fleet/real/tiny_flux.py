"""Writes a tiny Flux for stable-diffusion.cpp: random weights, 6 MB, and a text encoder of zeros.

    python -m fleet.real.tiny_flux [FOLDER]

Its images are noise, made by the same code as those of a real model. The bytes of an edition are
always the same. The text encoder's shape is fixed in stable-diffusion.cpp (CLIP-L, 246 MB); its
file is sparse, so it takes some kilobytes of disk space.
"""

import json
import math
import os
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.real.cache import alone, cache_folder

EDITION: Final = 1
"""Part of the cached folder's name: a model that is made differently is another model."""
SEED: Final = 7
WIDTH: Final = 128
"""Numbers a token has inside; one attention head, which is as wide as stable-diffusion.cpp's."""
LATENT: Final = 64
"""Numbers of a token of the image: 16 channels of a patch of 2x2."""
TEXT: Final = 4096
POOLED: Final = 768
TIME: Final = 256
CHANNELS: Final = 64
"""Of the autoencoder's layers (the layout of taef1)."""
LATENT_CHANNELS: Final = 16
CLIP_WIDTH: Final = 768
CLIP_LAYERS: Final = 12
CLIP_WORDS: Final = 49408
CLIP_PLACES: Final = 77
FLOAT16_BYTES: Final = 2

Array = NDArray[np.float32]
Tensors = dict[str, Array]


@dataclass(frozen=True, slots=True)
class TinyFlux:
    """The three files of the model."""

    diffusion: Path
    autoencoder: Path
    text_encoder: Path

    @property
    def options(self) -> list[str]:
        """Options of sd-server that load the files, with few steps and no guidance."""
        return [
            *("--diffusion-model", str(self.diffusion)),
            *("--tae", str(self.autoencoder)),
            *("--clip_l", str(self.text_encoder)),
            *("--cfg-scale", "1", "--steps", "2", "--sampling-method", "euler"),
        ]


class _Weights:
    """Random tensors by name, from one seed."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self._random = np.random.default_rng(SEED)

    def linear(self, name: str, inputs: int, outputs: int, scale: float = 1.0) -> None:
        self._draw(name, (outputs, inputs), scale / math.sqrt(inputs))
        self.tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def convolution(self, name: str, inputs: int, outputs: int, *, has_bias: bool = True) -> None:
        self._draw(name, (outputs, inputs, 3, 3), 1 / math.sqrt(inputs * 9))
        if has_bias:
            self.tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norms(self, name: str) -> None:
        for which in ("query_norm", "key_norm"):
            self.tensors[f"{name}.{which}.scale"] = np.ones(WIDTH, np.float32)

    def _draw(self, name: str, shape: tuple[int, ...], scale: float) -> None:
        drawn = self._random.normal(0, scale, shape)
        self.tensors[f"{name}.weight"] = drawn.astype(np.float32)


def tiny_flux() -> TinyFlux:
    """The model, from the cache; written there the first time."""
    folder = cache_folder() / f"tiny-flux-{EDITION}"
    with alone(folder):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=".tiny-flux-", dir=folder.parent) as place:
                write_model(Path(place) / "model")
                (Path(place) / "model").rename(folder)
    return _files(folder)


def write_model(folder: Path) -> TinyFlux:
    """Write the three files into a new folder."""
    folder.mkdir(parents=True)
    files = _files(folder)
    _save(files.diffusion, _diffusion())
    _save(files.autoencoder, _autoencoder())
    _save_zeros(files.text_encoder, _text_encoder())
    return files


def _files(folder: Path) -> TinyFlux:
    names = ("flux.safetensors", "taef1.safetensors", "clip_l.safetensors")
    return TinyFlux(*(folder / name for name in names))


def _diffusion() -> Tensors:
    """One double block and one single block."""
    made = _Weights()
    made.linear("img_in", LATENT, WIDTH)
    made.linear("txt_in", TEXT, WIDTH)
    for name, inputs in (("time_in", TIME), ("vector_in", POOLED)):
        made.linear(f"{name}.in_layer", inputs, WIDTH)
        made.linear(f"{name}.out_layer", WIDTH, WIDTH)
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}_"
        made.linear(f"{block}mod.lin", WIDTH, 6 * WIDTH, 0.3)
        made.linear(f"{block}attn.qkv", WIDTH, 3 * WIDTH)
        made.linear(f"{block}attn.proj", WIDTH, WIDTH)
        made.norms(f"{block}attn.norm")
        made.linear(f"{block}mlp.0", WIDTH, 4 * WIDTH)
        made.linear(f"{block}mlp.2", 4 * WIDTH, WIDTH)
    block = "single_blocks.0."
    made.linear(f"{block}linear1", WIDTH, 7 * WIDTH)
    made.linear(f"{block}linear2", 5 * WIDTH, WIDTH)
    made.linear(f"{block}modulation.lin", WIDTH, 3 * WIDTH, 0.3)
    made.norms(f"{block}norm")
    made.linear("final_layer.linear", WIDTH, LATENT)
    made.linear("final_layer.adaLN_modulation.1", WIDTH, 2 * WIDTH, 0.3)
    return made.tensors


def _autoencoder() -> Tensors:
    """Three times half the size on the way in, three times double on the way out."""
    made = _Weights()
    layer = "encoder.layers."
    made.convolution(f"{layer}0", 3, CHANNELS)
    _residual(made, f"{layer}1")
    at = 2
    for _ in range(3):
        made.convolution(f"{layer}{at}", CHANNELS, CHANNELS, has_bias=False)
        for step in range(1, 4):
            _residual(made, f"{layer}{at + step}")
        at += 4
    made.convolution(f"{layer}{at}", CHANNELS, LATENT_CHANNELS)
    layer = "decoder.layers."
    made.convolution(f"{layer}0", LATENT_CHANNELS, CHANNELS)
    at = 2  # what has no weights is counted too: 1 is an activation, and there is an upsampling
    for _ in range(3):
        for step in range(3):
            _residual(made, f"{layer}{at + step}")
        made.convolution(f"{layer}{at + 4}", CHANNELS, CHANNELS, has_bias=False)
        at += 5
    _residual(made, f"{layer}{at}")
    made.convolution(f"{layer}{at + 1}", CHANNELS, 3)
    return made.tensors


def _residual(made: _Weights, name: str) -> None:
    for place in (0, 2, 4):
        made.convolution(f"{name}.conv.{place}", CHANNELS, CHANNELS)


def _text_encoder() -> dict[str, tuple[int, ...]]:
    """The shapes of CLIP-L."""
    wide = CLIP_WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (CLIP_WORDS, wide),
        "embeddings.position_embedding.weight": (CLIP_PLACES, wide),
        "final_layer_norm.weight": (wide,),
        "final_layer_norm.bias": (wide,),
    }
    for number in range(CLIP_LAYERS):
        layer = f"encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (wide, wide)
            shapes[f"{layer}.self_attn.{name}.bias"] = (wide,)
        for name, inputs, outputs in (("fc1", wide, 4 * wide), ("fc2", 4 * wide, wide)):
            shapes[f"{layer}.mlp.{name}.weight"] = (outputs, inputs)
            shapes[f"{layer}.mlp.{name}.bias"] = (outputs,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (wide,)
    return {f"text_model.{name}": shape for name, shape in shapes.items()}


def _save(path: Path, tensors: Tensors) -> None:
    head, _ = _header("F32", {name: array.shape for name, array in tensors.items()}, 4)
    with path.open("wb") as file:
        file.write(head)
        for array in tensors.values():
            file.write(array.tobytes())


def _save_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a sparse file, whose data reads as zeros."""
    head, size_bytes = _header("F16", shapes, FLOAT16_BYTES)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size_bytes)


def _header(kind: str, shapes: dict[str, tuple[int, ...]], width: int) -> tuple[bytes, int]:
    """The header of safetensors (length, JSON, padded to 8 bytes), and the bytes that follow."""
    fields: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        end = at + width * math.prod(shape)
        fields[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


def main(arguments: list[str]) -> int:
    """Write the model to the given folder, or into the cache; print its path."""
    model = write_model(Path(arguments[0])) if arguments else tiny_flux()
    sys.stdout.write(f"{model.diffusion.parent}\n")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
