"""Generation by transformers' generate: the counterpart of `npm run bench -- decode`, with its shapes and its JSON lines.

    python3 bench/peers/torch_decode.py [--device cuda] [--shape llama-1b] [--dtype bf16] [--batch 1,32] [--prompt 128] [--new 128] [--cache static] [--threads N]
"""

import argparse
import json
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "llama-134m": dict(layers=12, dim=768, heads=12, kv_heads=12, ffn=2048, vocab=32000, tied=False),
    "llama-1b": dict(layers=16, dim=2048, heads=32, kv_heads=8, ffn=8192, vocab=128256, tied=True),
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def model_of(shape, dtype, device):
    config = LlamaConfig(
        hidden_size=shape["dim"],
        intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        vocab_size=shape["vocab"],
        max_position_embeddings=2048,
        tie_word_embeddings=shape["tied"],
    )
    with torch.device(device):
        return LlamaForCausalLM(config).to(dtype).eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape")
    parser.add_argument("--dtype")
    parser.add_argument("--batch")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--cache", choices=["dynamic", "static"], default="dynamic")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    gpu = options.device == "cuda"
    if options.threads:
        torch.set_num_threads(options.threads)
    name = options.shape or ("llama-1b" if gpu else "llama-134m")
    shape = SHAPES[name]
    for dtype in (options.dtype or ("bf16" if gpu else "f32,bf16")).split(","):
        model = model_of(shape, DTYPES[dtype], options.device)
        for batch in map(int, (options.batch or ("1,32" if gpu else "1")).split(",")):
            ids = torch.randint(0, shape["vocab"], (batch, options.prompt), device=options.device)

            def run(count):
                if gpu:
                    torch.cuda.synchronize()
                start = time.perf_counter()
                more = dict(cache_implementation="static") if options.cache == "static" else {}
                model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0, **more)
                if gpu:
                    torch.cuda.synchronize()
                return time.perf_counter() - start

            run(options.new)
            first = min(run(1) for _ in range(3))
            whole = min(run(options.new) for _ in range(3))
            line = dict(
                bench="decode",
                mode=f"transformers {options.cache}",
                device=options.device,
                shape=name,
                dtype=dtype,
                batch=batch,
                prompt=options.prompt,
                new=options.new,
                tokensPerSecond=round(batch * options.new / whole, 1),
                decodeTokensPerSecond=round(batch * (options.new - 1) / (whole - first), 1),
                firstMs=round(first * 1000, 1),
            )
            print(json.dumps(line), flush=True)


main()
