# Writes the directories of old kinds beside it, with PyTorch and transformers: tiny models as people find them on the Hub.
# Usage: python make.py
import json, os, shutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

here = os.path.dirname(os.path.abspath(__file__))


def fresh(name):
    path = os.path.join(here, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def logits(model, path):
    ids = torch.arange(6).reshape(1, 6) % model.config.vocab_size
    with torch.no_grad():
        values = model(ids).logits.float()
    json.dump({"input_ids": ids.tolist(), "logits": values.flatten().tolist()}, open(os.path.join(path, "expected.json"), "w"))


# GPT-2 as it was first published: a pickle without the prefix of the base model, with masks among the weights, and no head.
torch.manual_seed(1)
config = GPT2Config(vocab_size=13, n_positions=8, n_embd=8, n_layer=2, n_head=2)
model = GPT2LMHeadModel(config).eval()
path = fresh("gpt2-bin")
state = {k[len("transformer."):]: v for k, v in model.state_dict().items() if k.startswith("transformer.")}
for i in range(2):
    state[f"h.{i}.attn.bias"] = torch.tril(torch.ones(8, 8)).reshape(1, 1, 8, 8)
    state[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
torch.save(state, os.path.join(path, "pytorch_model.bin"))
json.dump({k: v for k, v in config.to_dict().items() if k in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")},
          open(os.path.join(path, "config.json"), "w"))
logits(model, path)

# Llama in shards of a pickle, in half precision, with tables of angles and a transposed, so not contiguous, weight.
torch.manual_seed(2)
config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                     max_position_embeddings=16, tie_word_embeddings=False)
model = LlamaForCausalLM(config).half()
path = fresh("llama-bin-shards")
state = model.state_dict()
state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
name = "model.layers.0.mlp.up_proj.weight"
state[name] = state[name].t().contiguous().t()
names = sorted(state)
shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
for file, part in shards.items():
    torch.save({k: state[k] for k in part}, os.path.join(path, file))
json.dump({"metadata": {"total_size": 0}, "weight_map": {k: f for f, part in shards.items() for k in part}},
          open(os.path.join(path, "pytorch_model.bin.index.json"), "w"))
raw = config.to_dict()
raw.pop("dtype", None)
raw["torch_dtype"] = "float16"
json.dump(raw, open(os.path.join(path, "config.json"), "w"))
logits(model.float(), path)
