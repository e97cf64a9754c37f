"""Writes one random model in the layout of each peer, from the same weights."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import family_models
from benchmarks.shapes import SHAPES
from lolama.quantize import Options
from lolama_core import LlamaConfig

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def random_weights(config: LlamaConfig, seed: int = 0) -> dict[str, Tensor]:
    """Hugging Face names → float32 tensors, of the size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    d, kv = config.d_model, config.num_kv_heads * config.head_dim
    weights = {"model.embed_tokens.weight": torch.randn(config.vocab_size, d, generator=generator)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5

    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        linear(f"{prefix}.self_attn.q_proj", d, d)
        linear(f"{prefix}.self_attn.k_proj", kv, d)
        linear(f"{prefix}.self_attn.v_proj", kv, d)
        linear(f"{prefix}.self_attn.o_proj", d, d)
        linear(f"{prefix}.mlp.gate_proj", config.hidden_dim, d)
        linear(f"{prefix}.mlp.up_proj", config.hidden_dim, d)
        linear(f"{prefix}.mlp.down_proj", d, config.hidden_dim)
        weights[f"{prefix}.input_layernorm.weight"] = torch.ones(d)
        weights[f"{prefix}.post_attention_layernorm.weight"] = torch.ones(d)
    weights["model.norm.weight"] = torch.ones(d)
    if not config.tie_word_embeddings:
        linear("lm_head", config.vocab_size, d)
    return weights


def write_hugging_face(folder: Path, config: LlamaConfig, dtype: str) -> None:
    """config.json, model.safetensors and a tokenizer of numbered words."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    folder.mkdir(parents=True)
    weights = {name: t.to(DTYPES[dtype]) for name, t in random_weights(config).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.eps,
        "rope_theta": config.rope_base,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": str(DTYPES[dtype]).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(settings))
    vocabulary = {f"t{i}": i for i in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "t1", "eos_token": "t2", "unk_token": "t0"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
    )


def gguf_name(name: str) -> str:
    """Hugging Face's name of a tensor → GGUF's."""
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{parts[part]}.weight"


def write_gguf(path: Path, config: LlamaConfig, weights: Mapping[str, Tensor], dtype: str) -> None:
    """Write a model for llama.cpp. Its q and k have interleaved rotary pairs; names of tokens do not matter.

    Args:
        path: A new file.
        config: The shape.
        weights: Hugging Face names → float32; without ``lm_head`` the embeddings take its place.
        dtype: ``bf16``, ``f16`` or ``q8_0``.
    """
    import gguf

    kinds = {
        "bf16": gguf.GGMLQuantizationType.BF16,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    kind = kinds[dtype]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    words = [f"t{i}".encode() for i in range(config.vocab_size)]
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([2, 3, 3] + [1] * (config.vocab_size - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    for name, tensor in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_heads if "q_proj" in name else config.num_kv_heads
            halves = tensor.view(heads, 2, config.head_dim // 2, -1)
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        if tensor.dim() == 1:
            writer.add_tensor(gguf_name(name), tensor.numpy())
        else:
            data = gguf.quants.quantize(tensor.numpy(), kind)
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ctranslate2(folder: Path, source: Path, kind: str) -> None:
    """Converted by CTranslate2's own program from the Hugging Face folder."""
    program = Path(sys.executable).with_name("ct2-transformers-converter")
    command = [str(program), "--model", str(source), "--output_dir", str(folder)]
    subprocess.run([*command, "--quantization", kind], check=True, stdout=subprocess.DEVNULL)


def requantize_gguf(
    path: Path,
    source: Path,
    kind: str,
    *,
    linears_alone: bool = False,
    importance: Mapping[str, Tensor] | None = None,
) -> None:
    """A GGUF file of sixteen bits as llama.cpp's own quantizer makes ``q4_0``, ``q4_k_m``, ... of it.

    Args:
        path: A new file.
        source: The file.
        kind: What to make of it.
        linears_alone: Leave embedding and head in bfloat16.
        importance: Hugging Face name → E[x²] of each input of a linear (llama.cpp's importance matrix).
    """
    import gguf
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    if linears_alone:
        bf16 = gguf.GGMLQuantizationType.BF16.value
        settings.token_embedding_type = settings.output_tensor_type = bf16
    if importance:
        # One more: an entry without a name ends the list.
        entries = (llama_cpp.llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, squares) in zip(entries, importance.items(), strict=False):
            entry.name, entry.size = gguf_name(name).encode(), len(squares)
            entry.data = (ctypes.c_float * len(squares))(*squares.tolist())
        settings.imatrix = entries
    if llama_cpp.llama_model_quantize(bytes(source), bytes(path), settings) != 0:
        raise RuntimeError(f"llama.cpp cannot quantize {source}")


def write_quantized(folder: Path, source: Path, options: Options) -> None:
    """As `lolama quantize` writes it."""
    from lolama import names, quantize

    quantize.save(names.resolve(str(source)), folder, options)


def model_path(shape: str, layout: str, root: Path) -> Path:
    """The model of that shape in ``hf-bf16``, ``gguf-f16``, ``int8-kept``, ...; written on first use."""
    path = root / f"{shape}-{layout}"
    if path.exists():
        return path
    root.mkdir(parents=True, exist_ok=True)
    kind, dtype = layout.split("-")
    staged = path.with_name(f"{path.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.unlink(missing_ok=True)
    if kind == "hf" and shape in family_models.SHAPES:
        family_models.write_hugging_face(staged, shape)
    elif kind == "hf":
        write_hugging_face(staged, SHAPES[shape], dtype)
    elif kind == "gguf" and dtype.startswith("q4"):
        requantize_gguf(staged, model_path(shape, "gguf-f16", root), dtype)
    elif kind == "gguf" and shape in family_models.SHAPES:
        family_models.write_gguf(staged, model_path(shape, "hf-bf16", root), shape, dtype)
    elif kind == "gguf":
        write_gguf(staged, SHAPES[shape], random_weights(SHAPES[shape]), dtype)
    elif kind == "int8":
        write_quantized(
            staged, model_path(shape, "hf-bf16", root), Options(lm_head=dtype == "head")
        )
    elif kind == "int4":
        lm_head_bits = 4 if dtype == "head" else 8
        options = Options(bits=4, calibration=False, lm_head_bits=lm_head_bits)
        write_quantized(staged, model_path(shape, "hf-bf16", root), options)
    else:
        write_ctranslate2(staged, model_path(shape, "hf-bf16", root), dtype)
    staged.rename(path)
    return path
