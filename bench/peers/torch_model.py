"""The decoder that PyTorch trains as the peer: the shapes of bench/src/gpu/shapes.ts, fused attention, no dropout."""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Shape:
    kind: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    seq: int

    @property
    def head_dim(self):
        return self.dim // self.heads

    def flops_per_token(self):
        """6 for each weight of a matrix product, and causal attention; recomputation does not count."""
        attention = self.dim * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mlp = self.dim * self.ffn * (3 if self.kind == "llama" else 2)
        return 6 * (self.layers * (attention + mlp) + self.vocab * self.dim) + 6 * self.layers * self.dim * self.seq


SHAPES = {
    "gpt2-124m": Shape("gpt2", 12, 768, 12, 12, 3072, 50304, 1024),
    "gpt2-1.5b": Shape("gpt2", 48, 1600, 25, 25, 6400, 50304, 1024),
    "llama-1b": Shape("llama", 16, 2048, 32, 8, 8192, 128256, 2048),
    "llama-8b": Shape("llama", 32, 4096, 32, 8, 14336, 128256, 2048),
}


def norm_of(shape):
    return nn.RMSNorm(shape.dim, eps=1e-5) if shape.kind == "llama" else nn.LayerNorm(shape.dim)


def turn(x, cos, sin):
    """Rotary positions, halves paired as in Llama."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, low * sin + high * cos), dim=-1)


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        gpt = shape.kind == "gpt2"
        self.sizes = [shape.dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
        self.attention_norm, self.mlp_norm = norm_of(shape), norm_of(shape)
        self.qkv = nn.Linear(shape.dim, sum(self.sizes), bias=gpt)
        self.out = nn.Linear(shape.dim, shape.dim, bias=gpt)
        self.up = nn.Linear(shape.dim, shape.ffn if gpt else 2 * shape.ffn, bias=gpt)
        self.down = nn.Linear(shape.ffn, shape.dim, bias=gpt)

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(self.attention_norm(x)).split(self.sizes, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2) for t in (q, k, v))
        if cos is not None:
            q, k = turn(q, cos, sin), turn(k, cos, sin)
        grouped = self.shape.kv_heads != self.shape.heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        hidden = self.up(self.mlp_norm(x))
        if self.shape.kind == "llama":
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden, approximate="tanh")
        return x + self.down(hidden)


class Decoder(nn.Module):
    def __init__(self, shape, recompute=False):
        super().__init__()
        self.shape, self.recompute = shape, recompute
        self.tokens = nn.Embedding(shape.vocab, shape.dim)
        self.positions = nn.Embedding(shape.seq, shape.dim) if shape.kind == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = norm_of(shape)
        self.head = nn.Linear(shape.dim, shape.vocab, bias=False)
        if shape.kind == "gpt2":
            self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, ids, labels):
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids)
        cos = sin = None
        if self.positions is not None:
            x = x + self.positions(places)
        else:
            half = torch.arange(0, self.shape.head_dim, 2, device=ids.device).float() / self.shape.head_dim
            angles = torch.outer(places.float(), 500000.0**-half)
            cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = checkpoint(block, x, cos, sin, use_reentrant=False) if self.recompute else block(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), labels.flatten())
