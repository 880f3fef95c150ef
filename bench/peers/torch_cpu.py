"""PyTorch on the shapes given as JSON on stdin; prints one JSON line. Only the benchmarks run this, as the peer beside them."""
import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def timed(body, runs=9, warmup=2):
    for _ in range(warmup):
        body()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        body()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def gemm_rate(m, n, k, layout):
    a = torch.randn(k, m).t() if layout == "TN" else torch.randn(m, k)
    b = torch.randn(n, k).t() if layout == "NT" else torch.randn(k, n)
    out = torch.empty(m, n)
    best, _ = timed(lambda: torch.matmul(a, b, out=out), 15, 3)
    return 2 * m * n * k / best / 1e9


def adamw_rate(n=32 << 20):
    p = nn.Parameter(torch.ones(n))
    p.grad = torch.full((n,), 0.01)
    optimizer = torch.optim.AdamW([p], lr=1e-3, fused=True)
    best, _ = timed(optimizer.step)
    return 28 * n / best / 1e9


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.ln_1(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, vocab, layers, heads, dim, context):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(dim)

    def forward(self, ids, labels):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy((self.ln_f(x) @ self.wte.weight.t()).flatten(0, 1), labels.flatten())


def gpt_step_ms(shape):
    model = GPT(shape["vocabSize"], shape["layers"], shape["heads"], shape["dim"], shape["context"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(0, shape["vocabSize"], (shape["batch"], shape["context"]))

    def step():
        loss = model(ids, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return timed(step)[1] * 1e3


request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
result = {
    "version": torch.__version__,
    "gemm": [gemm_rate(**product) for product in request["products"]],
    "adamwGBs": adamw_rate(),
    "gptStepMs": gpt_step_ms(request["gpt"]),
}
print(json.dumps(result))
