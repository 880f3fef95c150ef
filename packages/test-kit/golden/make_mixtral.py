"""A tiny Mixtral and what transformers makes of it, for packages/test-kit/src/golden-mixtral.ts.

Run with Python, torch and transformers 5 from this folder: python make_mixtral.py. Writes mixtral/: config.json and model.safetensors as
`save_pretrained` writes them, and golden.safetensors: logits, loss and gradients with the auxiliary loss of the routers and (plain.*)
without it, what it says after a prompt, and the losses of ten AdamW steps with the auxiliary loss. Gradients have the names of the checkpoint, whose experts are apart.
"""

import os

import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM

OUT = "mixtral"


def gradients(model, prefix):
    split = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad.clone()
        name = name.replace(".mlp.", ".block_sparse_moe.")
        if name.endswith("experts.gate_up_proj"):
            half = grad.shape[1] // 2
            for e in range(grad.shape[0]):
                split[name.replace("gate_up_proj", f"{e}.w1.weight")] = grad[e, :half].contiguous()
                split[name.replace("gate_up_proj", f"{e}.w3.weight")] = grad[e, half:].contiguous()
        elif name.endswith("experts.down_proj"):
            for e in range(grad.shape[0]):
                split[name.replace("down_proj", f"{e}.w2.weight")] = grad[e].contiguous()
        else:
            split[name] = grad
    model.zero_grad()
    return {prefix + name: grad for name, grad in split.items()}


def main():
    torch.manual_seed(7)
    config = MixtralConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        sliding_window=5,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
    )
    model = MixtralForCausalLM._from_config(config, attn_implementation="eager").float().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_((1 + 0.1 * torch.randn_like(parameter)) if "norm" in name else 0.3 * torch.randn_like(parameter))
    model.save_pretrained(OUT)

    ids = torch.randint(0, config.vocab_size, (3, 12))
    golden = {"input_ids": ids.int()}
    out = model(ids, labels=ids)
    out.loss.backward()
    golden["logits"], golden["loss"], golden["aux_loss"] = out.logits.detach(), out.loss.detach(), out.aux_loss.detach()
    golden.update(gradients(model, "grad."))
    plain = model(ids, labels=ids, output_router_logits=False)
    plain.loss.backward()
    golden["plain.loss"] = plain.loss.detach()
    golden.update(gradients(model, "plain.grad."))

    model.eval()
    prompt = torch.randint(0, config.vocab_size, (1, 7), generator=torch.Generator().manual_seed(1))
    golden["prompt"] = prompt.int()
    golden["greedy"] = model.generate(prompt, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)[:, 7:].int()
    model.train()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses = []
    for step in range(10):
        batch = torch.randint(0, config.vocab_size, (4, 8))
        golden[f"train_batch_{step}"] = batch.int()
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    golden["train_losses"] = torch.stack(losses)
    save_file({name: value.contiguous() for name, value in golden.items()}, os.path.join(OUT, "golden.safetensors"))


main()
