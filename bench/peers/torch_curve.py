"""Goes the way of `bench curve` in PyTorch: the same initial weights (opened by Hugging Face transformers), tokens and optimizer.

  python3 bench/peers/torch_curve.py FOLDER
Prints how far our losses lie from PyTorch's bf16 losses, and how far PyTorch's own bf16 and f32 losses lie apart: the noise."""
import json
import sys

import numpy
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train(folder, run, tokens, precision):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
    losses = []
    for ids, labels in tokens:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(ids).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def apart(a, b):
    difference = numpy.abs(numpy.array(a) - numpy.array(b))
    return {"mean": round(float(difference.mean()), 5), "max": round(float(difference.max()), 5), "last": round(float(difference[-20:].mean()), 5)}


def main():
    folder = sys.argv[1]
    with open(f"{folder}/losses.json") as file:
        run = json.load(file)
    shape = (run["steps"], 2, run["batch"], run["seq"])
    tokens = torch.from_numpy(numpy.fromfile(f"{folder}/tokens.i32", dtype=numpy.int32).reshape(shape)).long().to(DEVICE)
    torch.backends.cuda.matmul.allow_tf32 = False
    bf16, f32 = (train(folder, run, tokens, precision) for precision in ("bf16", "f32"))
    ours = run["losses"]
    line = {
        "bench": "curve beside PyTorch",
        **{key: run[key] for key in ("shape", "precision", "steps")},
        "first": [round(losses[0], 5) for losses in (ours, bf16, f32)],
        "last": [round(losses[-1], 5) for losses in (ours, bf16, f32)],
        "ours_to_torch_bf16": apart(ours, bf16),
        "ours_to_torch_f32": apart(ours, f32),
        "torch_bf16_to_f32": apart(bf16, f32),
    }
    print(json.dumps(line), flush=True)


main()
