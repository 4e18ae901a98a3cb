"""Writes a tiny GGUF for llama.cpp: random weights, a vocabulary of made-up words, 0.4 MB.

    python -m fleet.real.tiny_model [OUT.gguf]

It writes nonsense, some thousand words a second, with the same code as a real model. The file is
for chat and, with `--embeddings`, for vectors. The bytes of a shape are always the same.

Every token has the same value in dimension 0, and no layer writes there, so column 0 of the output
weights is a bias. It suppresses byte and control tokens (unless a grammar allows nothing else),
and sets the probability of the end of an answer.
"""

import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray

from fleet.real.cache import alone, cache_folder

EDITION: Final = 1
"""Part of the cached file's name: a model that is made differently is another model."""
CONTROL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS: Final = ("<tool_call>", "</tool_call>")
PAD_ID: Final = 0
END_ID: Final = CONTROL.index("<|im_end|>")
TOOL_CALL_ID: Final = len(CONTROL)
"""After this token llama.cpp's grammar makes name and arguments of a call valid."""
CONSTANT: Final = 4.0
"""Value of every token in dimension 0."""
NEVER: Final = -25.0
CALL: Final = 40.0
CALLED: Final = 60.0
"""Greater: a call is enough. A grammar that requires one forbids the end before it."""
SPACE: Final = "Ġ"
"""How the byte alphabet of GPT-2 writes a space."""

_ONSETS: Final = "b br c d dr f fl g h k l m n p pl r s st t tr v w".split()  # noqa: SIM905
_VOWELS: Final = "a e i o u ai ea ou".split()  # noqa: SIM905
_CODAS: Final = ("", "n", "r", "s", "t", "l", "nd", "m", "ck")

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Size of the model and length of its answers."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 128
    context: int = 8192
    words: int = 600
    mean_answer_tokens: int = 60
    """At temperature 1, without a limit."""
    calls_tools: bool = False
    """Whether it makes a call and writes nothing else, if `tool_choice` requires one."""
    seed: int = 1


DEFAULT: Final = TinyShape()


def tiny_model(*, calls_tools: bool = False) -> Path:
    """Path of the model in the cache; writes it unless it exists."""
    path = cache_folder() / f"tiny{'-tools' if calls_tools else ''}-{EDITION}.gguf"
    with alone(path):
        if not path.is_file():
            write_model(path, TinyShape(calls_tools=calls_tools))
    return path


def write_model(path: Path, shape: TinyShape = DEFAULT) -> None:
    """Write the model to `path`, completely or not at all."""
    dice = np.random.default_rng(shape.seed)
    tokens = vocabulary(shape, dice)
    with tempfile.TemporaryDirectory(prefix=".tiny-", dir=path.parent) as place:
        draft = Path(place) / path.name
        writer = gguf.GGUFWriter(draft, "llama")
        _describe(writer, shape, tokens)
        for name, tensor in _tensors(shape, tokens, dice).items():
            # Norms are read as float32 whatever the file's type is.
            dtype = np.float32 if tensor.ndim == 1 else np.float16
            writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=dtype))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        draft.rename(path)


def vocabulary(shape: TinyShape, dice: np.random.Generator) -> list[str]:
    """Control tokens, tags, the 256 bytes, and words that begin with a space."""
    words = {"the", "a", "of", "and", "to", "in", "is", "it", "that", "for", "queue", "model"}
    while len(words) < shape.words:
        syllables = dice.choice((1, 1, 2, 2, 3))
        words.add("".join(_syllable(dice) for _ in range(syllables)))
    return [*CONTROL, *TAGS, *_bytes(), f"{SPACE}t", *(SPACE + word for word in sorted(words))]


def _syllable(dice: np.random.Generator) -> str:
    return "".join(str(dice.choice(part)) for part in (_ONSETS, _VOWELS, _CODAS))


def _bytes() -> list[str]:
    """The alphabet of GPT-2: a printable letter for each byte, those that have none from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (number for number in range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _describe(writer: gguf.GGUFWriter, shape: TinyShape, tokens: list[str]) -> None:
    writer.add_name("tiny-random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(len(tokens))
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("gpt2")
    # This one looks up a whole word as a token before it applies the merges.
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([_type(at) for at in range(len(tokens))])
    writer.add_token_merges([f"{SPACE} t"])
    writer.add_bos_token_id(PAD_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_eot_token_id(END_ID)
    writer.add_pad_token_id(PAD_ID)
    writer.add_add_bos_token(False)  # noqa: FBT003 - gguf's signature
    writer.add_chat_template(Path(__file__).with_name("chat_template.jinja").read_text())


def _type(at: int) -> gguf.TokenType:
    if at < len(CONTROL):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if at < TOOL_CALL_ID + len(TAGS) else gguf.TokenType.NORMAL


def _tensors(shape: TinyShape, tokens: list[str], dice: np.random.Generator) -> dict[str, Array]:
    """Every weight by its GGUF name; nothing but the embedding writes into dimension 0."""
    width, inner = shape.width, shape.inner

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Array:
        return dice.normal(0, scale / math.sqrt(columns), (rows, columns))

    embedding = dice.normal(size=(len(tokens), width))
    embedding[:, 0] = CONSTANT
    tensors: dict[str, Array] = {
        "token_embd.weight": embedding,
        "output_norm.weight": np.ones(width),
        "output.weight": _output(shape, tokens, matrix(len(tokens), width)),
    }
    for at in range(shape.layers):
        layer = {
            "attn_norm": np.ones(width),
            "attn_q": matrix(width, width),
            "attn_k": matrix(width, width),
            "attn_v": matrix(width, width),
            "attn_output": matrix(width, width, 0.3),
            "ffn_norm": np.ones(width),
            "ffn_gate": matrix(inner, width),
            "ffn_up": matrix(inner, width),
            "ffn_down": matrix(width, inner, 0.3),
        }
        layer["attn_output"][0] = layer["ffn_down"][0] = 0
        tensors |= {f"blk.{at}.{name}.weight": tensor for name, tensor in layer.items()}
    return tensors


def _output(shape: TinyShape, tokens: list[str], weights: Array) -> Array:
    """Logits of variance 1 for words; the end as likely as the mean length of answers wants."""
    # Value of dimension 0 after the last norm, where the others have grown to a square of 1.3.
    seen = CONSTANT / math.sqrt((CONSTANT**2 + 1.3 * (shape.width - 1)) / shape.width)
    is_word = np.array([token.startswith(SPACE) and len(token) > 2 for token in tokens])  # noqa: PLR2004
    weights[:, 0] = np.where(is_word, 0, NEVER / seen)
    # The mean of exp(logit) is e^0.5 at variance 1.
    all_words = math.log(is_word.sum()) + 0.5
    weights[END_ID] = 0
    weights[END_ID, 0] = (all_words - math.log(shape.mean_answer_tokens)) / seen
    if shape.calls_tools:
        weights[TOOL_CALL_ID] = 0
        weights[(TOOL_CALL_ID, END_ID), 0] = (CALL / seen, CALLED / seen)
    return weights


def main(arguments: list[str]) -> int:
    """Write the model to the given path, or into the cache; print its path."""
    if arguments:
        path = Path(arguments[0])
        write_model(path)
    else:
        path = tiny_model()
    sys.stdout.write(f"{path}{os.linesep}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
