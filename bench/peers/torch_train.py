"""Training steps in PyTorch or DeepSpeed, as the peer of `bench gpu`: one JSON line whose fields are the same.

  python3 bench/peers/torch_train.py --shape gpt2-124m --batch 32 --mode compile
Modes: eager, compile, fsdp2, fsdp2-compile, and deepspeed with --stage. For several GPUs: torchrun --nproc-per-node 2 ..."""
import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist

from torch_model import SHAPES, Decoder

WARM_UP = 4
PEAK_FLOPS = 989e12


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-124m")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--mode", choices=["eager", "compile", "fsdp2", "fsdp2-compile", "deepspeed"], default="compile")
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--checkpoint", action="store_true")
    return parser.parse_args()


def with_deepspeed(o, model):
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": o.batch,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": o.stage, "overlap_comm": True, "contiguous_gradients": True},
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "weight_decay": 0.1}},
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(model=model, config=config, model_parameters=model.parameters())

    def step(ids, labels):
        loss = engine(ids, labels)
        engine.backward(loss)
        engine.step()
        return loss

    return step


def with_torch(o, model, device):
    sharded = o.mode.startswith("fsdp2")
    if sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for block in model.blocks:
            if o.mode.endswith("compile"):
                block.compile()
            fully_shard(block, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
    forward = torch.compile(model) if o.mode == "compile" else model

    def step(ids, labels):
        with torch.autocast("cuda", torch.bfloat16, enabled=not sharded):
            loss = forward(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def main():
    begin = time.time()
    o = options()
    shape = SHAPES[o.shape]
    rank, world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    if o.mode == "deepspeed" and "MASTER_ADDR" not in os.environ:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    if o.mode.startswith("fsdp2"):
        if "MASTER_ADDR" not in os.environ:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29512", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        dist.init_process_group("nccl", device_id=device)

    with device:
        model = Decoder(shape, recompute=o.checkpoint)
    step = with_deepspeed(o, model) if o.mode == "deepspeed" else with_torch(o, model, device)
    data = []
    for index in range(4):
        generator = torch.Generator().manual_seed(1000 * index + rank)
        tokens = torch.randint(0, shape.vocab, (o.batch, shape.seq + 1), generator=generator).to(device)
        data.append((tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()))

    start = time.time()
    first = step(*data[0]).item()
    first_loss_seconds = time.time() - begin
    for i in range(1, WARM_UP):
        step(*data[i % 4])
    torch.cuda.synchronize()
    warm = time.time() - start
    times = []
    for i in range(o.steps):
        start = time.time()
        loss = step(*data[i % 4])
        torch.cuda.synchronize()
        times.append(time.time() - start)
    seconds = statistics.median(times)
    rate = o.batch * shape.seq / seconds
    if rank == 0:
        line = {
            "shape": o.shape,
            "mode": f"deepspeed ZeRO-{o.stage}" if o.mode == "deepspeed" else f"torch {o.mode}",
            "precision": "bf16",
            "world": world,
            "batch": o.batch,
            "seq": shape.seq,
            "ckpt": o.checkpoint,
            "ms": round(seconds * 1e3, 2),
            "min_ms": round(min(times) * 1e3, 2),
            "tok_s_gpu": round(rate),
            "mfu_989": round(rate * shape.flops_per_token() / PEAK_FLOPS, 4),
            "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            "reserved_GiB": round(torch.cuda.max_memory_reserved() / 2**30, 2),
            "first_loss": round(first, 4),
            "loss": round(loss.item(), 4),
            "first_loss_s": round(first_loss_seconds, 1),
            "warm_s": round(warm, 1),
        }
        print(json.dumps(line), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


main()
