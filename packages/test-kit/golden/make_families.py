"""Writes golden/families/<variant>: tiny models of every dense decoder family, and what transformers computes with them.

    python make_families.py [variant ...]      # torch 2.13, transformers 5.17

Of each: config.json and model.safetensors as `save_pretrained` writes them, and golden.safetensors with input_ids, logits, loss (labels =
inputs, shifted inside), grad.<parameter>, left_padded_input_ids, left_padded_mask and left_padded_last_logits, train_batch_0..9 and
train_losses: the loss before each AdamW step (lr 1e-3, betas 0.9/0.95, eps 1e-8, weight decay 0.1 on every parameter, no clipping).
Weights are random and large, so that everything a family does shows; sequences are longer than windows and than the positions of
pretraining.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

HERE = pathlib.Path(__file__).parent / "families"
TOKENS = 24

COMMON = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
NEOX = dict({k: v for k, v in COMMON.items() if k != "num_key_value_heads"}, num_attention_heads=2)
OPT = dict(
    {k: v for k, v in COMMON.items() if k not in ("num_key_value_heads", "intermediate_size", "tie_word_embeddings")},
    ffn_dim=24,
    dropout=0.0,
    num_attention_heads=2,
)
GEMMA = dict(COMMON, head_dim=8, query_pre_attn_scalar=4, sliding_window=5, tie_word_embeddings=True)


def rope(kind, **parameters):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=1000.0, **parameters))


VARIANTS = {
    "llama-linear": ("llama", dict(COMMON, attention_bias=True, mlp_bias=True, **rope("linear", factor=3.0))),
    "llama-dynamic": ("llama", dict(COMMON, head_dim=8, max_position_embeddings=16, **rope("dynamic", factor=2.0))),
    "llama-yarn": (
        "llama",
        dict(COMMON, head_dim=12, hidden_act="gelu", **rope("yarn", factor=4.0, original_max_position_embeddings=8, beta_fast=4.0)),
    ),
    "llama-3": (
        "llama",
        dict(
            COMMON,
            head_dim=12,
            **rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
        ),
    ),
    "mistral": ("mistral", dict(COMMON, head_dim=8, sliding_window=5)),
    "qwen2-window": ("qwen2", dict(COMMON, num_hidden_layers=3, use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen3": ("qwen3", dict(COMMON, head_dim=8, attention_bias=True, tie_word_embeddings=True)),
    "phi3": ("phi3", dict(COMMON, sliding_window=7)),
    "phi3-longrope": (
        "phi3",
        dict(
            COMMON,
            num_attention_heads=2,
            num_key_value_heads=1,
            original_max_position_embeddings=16,
            max_position_embeddings=64,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=1000.0,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.3],
                long_factor=[1.5, 2.5, 6.0],
            ),
        ),
    ),
    "gemma2": ("gemma2", dict(GEMMA, attn_logit_softcapping=4.0, final_logit_softcapping=6.0)),
    "gemma3": (
        "gemma3_text",
        dict(
            GEMMA,
            num_hidden_layers=3,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
    ),
    "opt": ("opt", OPT),
    "opt-350m": ("opt", dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=12, activation_function="gelu")),
    "gpt-neox": ("gpt_neox", dict(NEOX, rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5))),
    "gpt-neox-sequential": ("gpt_neox", dict(NEOX, use_parallel_residual=False, hidden_act="gelu_fast", attention_bias=False)),
    "bloom": ("bloom", dict(vocab_size=40, hidden_size=16, n_layer=2, n_head=4)),
    "bloom-six": (
        "bloom",
        dict(vocab_size=40, hidden_size=24, n_layer=1, n_head=6, apply_residual_connection_post_layernorm=True, tie_word_embeddings=False),
    ),
}


def randomise(model):
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            parameter.data = noise * (0.6 if "embed" in name or "word_emb" in name else 1.2 / parameter.shape[1] ** 0.5)
        elif "norm" in name and name.endswith("weight") and "gemma" not in model.config.model_type:
            parameter.data = 1 + 0.4 * noise
        else:
            parameter.data = 0.4 * noise


def make(variant):
    kind, fields = VARIANTS[variant]
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().train()
    randomise(model)
    folder = HERE / variant
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = lambda *shape: torch.randint(3, fields["vocab_size"], shape)
    golden = {}

    model.eval()
    x = ids(2, TOKENS)
    out = model(input_ids=x, labels=x)
    out.loss.backward()
    golden |= {"input_ids": x.int(), "logits": out.logits, "loss": out.loss}
    # By the names of checkpoints, which GPT-NeoX's head has another of.
    stored = lambda name: name.replace("lm_head", "embed_out") if kind == "gpt_neox" else name
    golden |= {f"grad.{stored(name)}": parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    mask = torch.ones(3, TOKENS, dtype=torch.long)
    mask[1, :9], mask[2, :18] = 0, 0
    padded = ids(3, TOKENS) * mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    places = {} if kind == "bloom" else {"position_ids": positions}
    with torch.no_grad():
        last = model(input_ids=padded, attention_mask=mask, **places).logits[:, -1]
    golden |= {"left_padded_input_ids": padded.int(), "left_padded_mask": mask.int(), "left_padded_last_logits": last}

    # Shorter than the other sequences: what turns otherwise in long ones turns back. (A dynamic scaling remembers; it stays long.)
    tokens = TOKENS if "dynamic" in variant else 14
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses = []
    for i in range(10):
        batch = ids(4, tokens)
        golden[f"train_batch_{i}"] = batch.int()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    golden["train_losses"] = torch.stack(losses)
    save_file({name: value.detach().contiguous() for name, value in golden.items()}, folder / "golden.safetensors")
    print(f"{variant:22} loss {out.loss.item():.4f}  logits {out.logits.std().item():.3f}")


for variant in sys.argv[1:] or VARIANTS:
    make(variant)
