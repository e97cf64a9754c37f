"""Makes the files beside it with version 0.1 of lolama: what a user of 0.1 has on the disk.

    python tests/made_by_0_1/make.py

Run it in a checkout of 0.1.0 (commit 3db707f) with its packages installed. A later version would write what
it is to be tested against. `tests/test_made_by_0_1.py` reads the files with the version of today.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).resolve().parent
# It is packed at the end: checkpoints align tensors to pages, mostly zeros.
HERE = Path(tempfile.mkdtemp())
HOME = HERE / "home"
os.environ |= {"LOLAMA_HOME": str(HOME), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import torch  # noqa: E402 - the variables come first

from lolama import TextGenerator, load_model, load_tokenizer, wiring  # noqa: E402
from lolama_core import Llama, LlamaConfig, write_checkpoint  # noqa: E402
from lolama_core.family import (  # type: ignore[import-not-found]  # noqa: E402 - where 0.1 has it
    LlamaFamily,
)
from lolama_vision.family import LlavaFamily  # noqa: E402

SPECIALS = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<image>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}"
    "{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": 264,
    "d_model": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 2,
    "hidden_dim": 48,
    "max_seq_len": 256,
}
PROMPT_IDS = [0, 77, 105, 112, 120, 31, 200, 9]


def tokenizer_json() -> str:
    """Byte-level, one token a byte behind the special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate((*SPECIALS, *letters))}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    text: str = tokenizer.to_str()
    return text


def randomized(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights that no two parts have in common."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in module.named_parameters():  # a tied one once
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        # With less spread in the embedding, a tied model says more than one byte.
        spread = 0.1 if "embed_tokens" in name else 0.4
        value = torch.randn(tensor.shape, generator=generator) * spread + around
        weights[name] = value.to(torch.bfloat16)
    return weights


def config_of(family: str, model: dict[str, Any], **generation: Any) -> dict[str, Any]:
    return {
        "format": "lolama",
        "format_version": 1,
        "family": family,
        "model": model,
        "dtype": "bfloat16",
        "generation": {"eos_ids": [1], "vocab_size": 261, **generation},
        "tokenizer": {"bos_token": "<s>", "eos_token": "</s>"},
    }


def write(name: str, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    write_checkpoint(
        HERE / name,
        config,  # type: ignore[arg-type] # a plain dict
        weights.items(),
        tokenizer_json=tokenizer_json(),
        chat_template=TEMPLATE,
    )


def text_model() -> None:
    """A checkpoint with recommended sampling, llama3 scaling and an output projection of its own."""
    scaling = {
        "type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_seq_len": 64,
    }
    model = {**SHAPE, "rope_base": 5e5, "rope_scaling": scaling}
    module = LlamaFamily().build(model, lambda config: Llama(LlamaConfig(**config)))
    write("text", config_of("llama", model, sampling={"temperature": 0.6}), randomized(module, 1))


def vision_model() -> None:
    """A LLaVA checkpoint: three CLIP layers, a projector, tied embeddings."""
    demo = json.loads((LlavaFamily().builtins["demo-vision"] / "config.json").read_text())["model"]
    vision = demo["vision_config"] | {
        "image_size": 28,
        "patch_size": 14,
        "width": 32,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_dim": 40,
        "feature_layer": -2,
    }
    model = {
        "vision_config": vision,
        "text_config": {**SHAPE, "tie_word_embeddings": True},
        "image_token_id": 4,
        "projector_bias": True,
    }
    module = LlavaFamily().build(model, lambda config: LlamaFamily().build(config, None))
    write("llava", config_of("llava", model), randomized(module, 2))


def pickled_model() -> None:
    """A folder in Hugging Face's layout with a .bin, and the checkpoint that 0.1 made of it."""
    shape = {**SHAPE, "tie_word_embeddings": True}
    module = Llama(LlamaConfig(**shape))
    names = {
        "layers.": "model.layers.",
        "embed_tokens.": "model.embed_tokens.",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attention.": "self_attn.",
        "feed_forward.": "mlp.",
        "w_gate": "gate_proj",
        "w_up": "up_proj",
        "w_down": "down_proj",
    }
    published = {}
    for name, tensor in randomized(module, 3).items():
        new = f"model.{name}" if name == "norm.weight" else name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        published[new] = tensor
    folder = HERE / "pickled"
    folder.mkdir()
    torch.save(published, folder / "pytorch_model.bin")
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE})
    )
    config = {
        "model_type": "llama",
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    wiring.resolve(folder)
    [made] = (HOME / "converted").iterdir()
    shutil.move(made, HERE / "converted")


def lolama(*arguments: str, typed: str = "") -> str:
    command = [sys.executable, "-m", "lolama_cli", *arguments]
    done = subprocess.run(command, cwd=HERE, input=typed.encode(), capture_output=True, check=True)
    return done.stdout.decode()


def batch() -> None:
    """Prompts, the answers of a whole run, and those of a run that was killed inside its third."""
    prompts = [
        {"prompt": "abc", "id": "first"},
        {"prompt": "def", "temperature": 0, "max_tokens": 4},
        {"prompt": "ghi", "system": "Be brief.", "seed": 7, "stop": ["q"]},
        "jkl",
        {"prompt": "mno", "id": 5, "top_p": 0.5, "top_k": 40, "min_p": 0.01},
    ]
    folder = HERE / "batch"
    folder.mkdir()
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    lolama(*BATCH, "-o", "batch/whole.jsonl")
    lines = (folder / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "half.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])


BATCH = (
    *("generate", "-m", "text", "--dtype", "float32", "--device", "cpu"),
    *("--seed", "3", "--max-tokens", "8", "--batch", "batch/prompts.jsonl"),
)


def user_files() -> None:
    """Settings, aliases of one's own, and a conversation."""
    folder = HERE / "user"
    folder.mkdir()
    os.environ["LOLAMA_CONFIG"] = str(folder / "config.toml")
    lolama("config", "set", "model", "text")
    lolama("config", "set", "max-tokens", "12")
    lolama("config", "set", "temperature", "0.5")
    del os.environ["LOLAMA_CONFIG"]
    lolama(
        *("chat", "-m", "text", "--dtype", "float32", "--seed", "3", "--max-tokens", "8"),
        typed="abc\nWhat next?\n/save user/transcript.json\n",
    )
    (folder / "aliases.toml").write_text(
        '[mine]\nrepo = "someone/some-model"\nparameters = "1B"\ndescription = "A model of mine"\n'
    )


def expected() -> None:
    """What 0.1 answers: 16 greedy ids and the logits behind the prompt, in float32, with kernels."""
    found: dict[str, Any] = {}
    for name in ("text", "int8", "llava", "pickled", "converted"):
        model, tokenizer = load_model(HERE / name, dtype="float32"), load_tokenizer(HERE / name)
        generator = TextGenerator(model, tokenizer)
        greedy = generator.generate(
            PROMPT_IDS, temperature=0.0, repetition_penalty=1.0, max_new_tokens=16, ignore_eos=True
        )
        with torch.inference_mode():
            logits = model.forward_embeds(model.embed(torch.tensor([PROMPT_IDS])))
        found[name] = {"ids": list(greedy.ids), "text": greedy.text, "logits": logits[0].tolist()}
    found["llava"]["described"] = lolama(
        *("generate", "-m", "llava", "--dtype", "float32", "--image", "picture.png"),
        *("--temperature", "0", "--max-tokens", "12", "What is it?"),
    )
    (OUTPUT / "expected.json").write_text(json.dumps(found) + "\n")


def interface() -> None:
    """Public names, entry points, and the options of every command."""
    from importlib.metadata import entry_points

    import typer.main

    from lolama_cli.app import app

    modules = (
        *("lolama", "lolama.data", "lolama.model", "lolama.vision", "lolama_core"),
        *("lolama_core.protocols", "lolama_vision", "lolama_quant", "lolama_hub"),
    )
    names = {name: sorted(__import__(name, fromlist=["x"]).__all__) for name in modules}
    command = typer.main.get_command(app)
    found: dict[str, Any] = {
        "names": names,
        "entry_points": {
            group: sorted(entry_points(group=group).names)
            for group in sorted(entry_points().groups)
            if group.startswith("lolama.")
        },
        "options": {"lolama": options_of(command), **commands_of(command)},
    }
    (OUTPUT / "interface.json").write_text(json.dumps(found, indent=1) + "\n")


def commands_of(group: Any, prefix: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, command in sorted(group.commands.items()):
        found[prefix + name] = options_of(command)
        if hasattr(command, "commands"):
            found |= commands_of(command, f"{prefix}{name} ")
    return found


def options_of(command: Any) -> list[str]:
    return sorted(
        option for p in command.params if p.param_type_name == "option" for option in p.opts
    )


def main() -> None:
    """Make all of it, and pack it."""
    text_model()
    vision_model()
    pickled_model()
    lolama("quantize", "-m", "text", "-o", "int8")
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (40, 32), (250, 240, 200))
    ImageDraw.Draw(picture).ellipse((8, 6, 28, 26), fill=(30, 60, 220))
    picture.save(HERE / "picture.png")
    batch()
    user_files()
    expected()
    interface()
    with tarfile.open(OUTPUT / "files.tar.xz", "w:xz") as packed:
        for name in FILES:
            packed.add(HERE / name, name)
    shutil.rmtree(HERE)


FILES = ("text", "int8", "llava", "pickled", "converted", "picture.png", "batch", "user")

if __name__ == "__main__":
    main()
