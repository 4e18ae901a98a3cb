"""A GGUF of the tiny BERT with a head of one number: what `llama-server --reranking` serves."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from support.tiny_bert import CONFIG, tiny_weights
from support.tiny_ranker import HEAD

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁{c}" for c in "abcdefghijklmnopqrstuvwxyz"))
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
    **{
        f"encoder.layer.{at}.{ours}.{part}": f"blk.{at}.{theirs}.{part}"
        for at in range(CONFIG["num_hidden_layers"])
        for ours, theirs in _LAYER.items()
        for part in ("weight", "bias")
    },
}


def write_rank_gguf(path: Path) -> Path:
    """Write the model; its positions are repeated, so that a batch has room."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny-ranker")
    writer.add_context_length(512)
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_layer_norm_eps(CONFIG["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    _add_vocabulary(writer)
    for name, tensor in _tensors().items():
        is_matrix = tensor.ndim > 1 and name.startswith("blk")
        dtype = np.float16 if is_matrix else np.float32
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(CONFIG["type_vocab_size"])
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([control if token.startswith("[") else normal for token in TOKENS])
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)


def _tensors() -> dict[str, Any]:
    weights = tiny_weights(CONFIG)
    tensors = {theirs: weights[ours] for ours, theirs in _NAMES.items()}
    positions = tensors["position_embd.weight"]
    tensors["position_embd.weight"] = np.tile(positions, (512 // len(positions), 1))
    return {**tensors, "cls.output.weight": HEAD.T, "cls.output.bias": np.zeros(1)}
