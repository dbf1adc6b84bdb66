"""A small model of the architecture llama with random weights and the demo's tokenizer: it knows nothing, and prints no confidence."""

import pathlib

import gguf
import numpy as np

from tests.support.paths import DEMO

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a small "
    "test model<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WIDTH, N_LAYERS, N_HEADS, FEED = 64, 2, 2, 96


def write_llama(path: pathlib.Path, template: str | None = CHATML, seed: int = 0, architecture: str = "llama") -> pathlib.Path:
    """Write the model; without a `template` it is a base model."""
    demo = gguf.GGUFReader(DEMO)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // N_HEADS)
    for field in demo.fields.values():
        if field.name.startswith("tokenizer.ggml."):
            kind, item = field.types[0], field.types[-1]
            if kind == gguf.GGUFValueType.ARRAY:
                writer.add_array(field.name, field.contents())
            else:
                writer.add_key_value(field.name, field.contents(), item)
    if template is not None:
        writer.add_chat_template(template)
    n_tokens = len(demo.fields["tokenizer.ggml.tokens"].data)
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        weights = np.ones(shape) if len(shape) == 1 else rng.normal(0, shape[-1] ** -0.5, shape)
        writer.add_tensor(name, weights.astype(np.float32))

    tensor("token_embd.weight", n_tokens, WIDTH)
    tensor("output.weight", n_tokens, WIDTH)
    tensor("output_norm.weight", WIDTH)
    for at in range(N_LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            tensor(f"blk.{at}.{name}.weight", WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{at}.{name}.weight", WIDTH, WIDTH)
        for name, rows, columns in (("ffn_gate", FEED, WIDTH), ("ffn_up", FEED, WIDTH), ("ffn_down", WIDTH, FEED)):
            tensor(f"blk.{at}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
