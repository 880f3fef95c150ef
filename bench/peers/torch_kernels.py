"""PyTorch's kernels, as the peer of `bench kernels`: JSON lines with the same names, shapes and counts of bytes and operations."""
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.testing import do_bench

TOKENS = 16384
device = torch.device("cuda")
torch.manual_seed(0)
wanted = sys.argv[1:]


def measure(op, shape, body, bytes=0, flops=0, peer="torch"):
    if wanted and not any(name in op for name in wanted):
        return
    try:
        ms = do_bench(body, warmup=50, rep=200, return_mode="median")
    except Exception as error:  # a backend that this GPU or shape does not have
        print(json.dumps({"op": op, "shape": shape, "peer": peer, "error": str(error)[:160]}), flush=True)
        return
    rate = {"GBs": round(bytes / ms / 1e6)} if bytes else {"TFLOPs": round(flops / ms / 1e9, 1)}
    print(json.dumps({"op": op, "shape": shape, "peer": peer, "ms": round(ms, 4), **rate}), flush=True)


def random(*shape, grad=False, scale=1.0):
    return (scale * torch.randn(*shape, device=device, dtype=torch.bfloat16)).requires_grad_(grad)


def gradient(body, inputs, upstream):
    y = body()
    return lambda: torch.autograd.grad(y, inputs, upstream, retain_graph=True)


def ceilings():
    source = random(2**30)
    target = torch.empty_like(source)
    measure("copy", "2 GiB bf16", lambda: target.copy_(source), bytes=2 * source.nbytes)
    del source, target
    sizes = [(8192, 8192, 8192, "matmul 8192x8192x8192")]
    sizes += [(TOKENS, n, k, "matmul") for n, k in ((3072, 768), (8192, 2048), (2048, 8192), (128256, 2048))]
    for m, n, k, name in sizes:
        a, b = random(m, k), random(n, k)
        measure(name, f"{m}x{n}x{k} bf16", lambda: a @ b.t(), flops=2 * m * n * k)


def attention():
    shapes = [(16, 12, 12, 1024, 64), (8, 32, 32, 2048, 64), (8, 32, 8, 2048, 64), (4, 32, 32, 4096, 128), (1, 32, 32, 16384, 128)]
    for batch, heads, kv_heads, tokens, size in shapes:
        q = random(batch, heads, tokens, size, grad=True)
        k, v = (random(batch, kv_heads, tokens, size, grad=True) for _ in range(2))
        upstream = torch.randn_like(q)
        shape = f"B{batch} H{heads}{'' if kv_heads == heads else f'/{kv_heads}'} T{tokens} D{size}"
        flops = 2 * batch * heads * tokens * tokens * size

        def forward():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != heads)

        for peer, backend in (("flash-2", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            with sdpa_kernel(backend):
                measure("attention forward", shape, forward, flops=flops, peer=peer)
                try:
                    backward = gradient(forward, (q, k, v), upstream)
                except Exception:
                    continue
                measure("attention backward", shape, backward, flops=2.5 * flops, peer=peer)


def rows():
    for cols in (768, 2048, 8192):
        x, upstream = random(TOKENS, cols, grad=True), random(TOKENS, cols)
        w, b = random(cols, grad=True), random(cols, grad=True)
        shape = f"{TOKENS}x{cols} bf16"
        bodies = [
            ("layer_norm", lambda: F.layer_norm(x, (cols,), w, b), (x, w, b)),
            ("rms_norm", lambda: F.rms_norm(x, (cols,), w), (x, w)),
            ("softmax", lambda: F.softmax(x, -1), (x,)),
        ]
        for op, body, inputs in bodies:
            for peer, f in (("torch", body), ("torch compiled", torch.compile(body))):
                measure(f"{op} forward", shape, f, bytes=2 * x.nbytes, peer=peer)
                measure(f"{op} backward", shape, gradient(f, inputs, upstream), bytes=3 * x.nbytes, peer=peer)


def activations():
    x, upstream = random(TOKENS, 3072, grad=True), random(TOKENS, 3072)
    gelu = torch.compile(lambda: F.gelu(x, approximate="tanh"))
    measure("gelu forward", f"{TOKENS}x3072 bf16", gelu, bytes=2 * x.nbytes, peer="torch compiled")
    measure("gelu backward", f"{TOKENS}x3072 bf16", gradient(gelu, (x,), upstream), bytes=3 * x.nbytes, peer="torch compiled")
    both, dy = random(TOKENS, 16384, grad=True), random(TOKENS, 8192)

    def gated():
        gate, value = both.chunk(2, dim=-1)
        return F.silu(gate) * value

    swiglu = torch.compile(gated)
    measure("swiglu forward", f"{TOKENS}x8192 bf16", swiglu, bytes=3 * dy.nbytes, peer="torch compiled")
    measure("swiglu backward", f"{TOKENS}x8192 bf16", gradient(swiglu, (both,), dy), bytes=5 * dy.nbytes, peer="torch compiled")


def head():
    for vocabulary, size in ((50304, 768), (128256, 2048)):
        x, w = random(TOKENS, size, grad=True), random(vocabulary, size, grad=True, scale=0.02)
        labels = torch.randint(0, vocabulary, (TOKENS,), device=device)

        def loss():
            return F.cross_entropy((x @ w.t()).float(), labels)

        name, shape = "linear_cross_entropy forward + backward", f"{TOKENS}x{vocabulary}x{size} bf16"
        for peer, f in (("torch", loss), ("torch compiled", torch.compile(loss))):
            measure(name, shape, lambda: torch.autograd.grad(f(), (x, w)), flops=6 * TOKENS * vocabulary * size, peer=peer)


def optimizers():
    parameters = [torch.randn(4096, 4096, device=device, requires_grad=True) for _ in range(60)]
    for p in parameters:
        p.grad = torch.randn_like(p)
    n = sum(p.numel() for p in parameters)
    for peer, how in (("torch fused", {"fused": True}), ("torch foreach", {"foreach": True})):
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, **how)
        optimizer.step()
        measure("adamw f32", f"{n / 1e9:.2f} B parameters", optimizer.step, bytes=28 * n, peer=peer)


for part in (ceilings, attention, rows, activations, head, optimizers):
    part()
    torch.cuda.empty_cache()
