"""Writes golden/lora-llama and golden/lora-gpt2: tiny models with adapters of PEFT, and what PyTorch computes with them.

    python make_lora.py      # torch 2.13, transformers 5.17, peft 0.21

Of each: the base model (config.json, model.safetensors), the adapters as PEFT saves them (adapter/), and golden.safetensors with
input_ids, labels, logits, loss, the gradients of all adapters, and logits after merging.
"""

import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent

MODELS = {
    "lora-llama": (
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=48,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
        ),
        LoraConfig(
            r=4,
            lora_alpha=6,
            use_rslora=True,
            target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
            rank_pattern={"o_proj": 3},
            alpha_pattern={"layers.1.mlp.down_proj": 10},
            modules_to_save=["lm_head"],
            task_type="CAUSAL_LM",
        ),
    ),
    "lora-gpt2": (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=48,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=32,
            bos_token_id=1,
            eos_token_id=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        ),
        LoraConfig(r=3, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    ),
}


def main():
    for seed, (name, (kind, config, lora)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        folder = HERE / name
        model = kind(config)
        # Initial values are too small to tell much.
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = get_peft_model(model, lora)
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder / "adapter")
        (folder / "adapter" / "README.md").unlink(missing_ok=True)

        ids = torch.randint(0, config.vocab_size, (2, 11))
        labels = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], dim=1)
        golden = {"input_ids": ids.to(torch.int32), "labels": labels.to(torch.int32)}
        logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        golden |= {"logits": logits.detach(), "loss": loss.detach()}
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                short = key.replace("base_model.model.", "").replace(".modules_to_save", "").replace(".default", "")
                golden[f"grad.{short}"] = parameter.grad
        golden["merged_logits"] = model.merge_and_unload()(input_ids=ids).logits.detach()
        save_file({key: value.contiguous() for key, value in golden.items()}, folder / "golden.safetensors")


main()
