"""Small networks in the manner of well-known ones, beyond those of the structures' tests, as PyTorch code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, TOKENS, WORDS = 16, 4, 9, 20


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: one half goes on, the other is worked on, and the channels are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        out = torch.cat((one, self.branch(two)), dim=1)
        batch, channels, height, width = out.size()
        out = out.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return out.view(batch, channels, height, width)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class GroupNormUNet(nn.Module):
    """GroupNorm, a transposed convolution up, and a pixel shuffle at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.low = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.SiLU())
        self.up = nn.ConvTranspose2d(12, 8, 2, 2)
        self.last = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1))
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        return self.shuffle(self.last(torch.cat([self.up(self.low(one)), one], 1)))


class SelfAttention(nn.Module):
    """Packed queries, keys and values, as in timm's ViT; a learned bias and a mask where asked for."""

    def __init__(self, causal: bool = False, biased: bool = False) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.zeros(1, HEADS, TOKENS, TOKENS)) if biased else None
        self.register_buffer("mask", torch.tril(torch.ones(TOKENS, TOKENS)).bool() if causal else None)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        packed = self.packed(x).reshape(batch, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = packed.unbind(0)
        scores = query @ key.transpose(-2, -1) * (width // HEADS) ** -0.5
        scores = scores if self.bias is None else scores + self.bias
        scores = scores if self.mask is None else scores.masked_fill(~self.mask, -1e4)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """A transformer's block before whose branches stands a LayerNorm."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = attention, nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.first, self.places = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(*(Block(SelfAttention()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class ShiftedWindows(nn.Module):
    """Swin's attention in windows of 3x3, rolled by one."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.norm = SelfAttention(biased=True), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(batch, height // 3, 3, width // 3, 3, channels).permute(0, 1, 3, 2, 4, 5)
        y = self.inside(y.reshape(-1, 9, channels))
        y = y.view(batch, height // 3, width // 3, 3, 3, channels).permute(0, 1, 3, 2, 4, 5)
        return x + torch.roll(y.reshape(batch, height, width, channels), (1, 1), (1, 2))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.windows = nn.Conv2d(3, WIDTH, 4, 2, 0), ShiftedWindows()
        self.norm, self.reduce, self.head = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.windows(self.patches(F.pad(x, (0, -2, 0, -2))).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduce(self.norm(x)).mean((1, 2)))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.tokens = nn.Sequential(nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 16))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class Gpt(nn.Module):
    """Causal, with an embedding that is also the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.Sequential(*(Block(SelfAttention(causal=True)) for _ in range(2)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(TOKENS))
        return F.linear(self.norm(self.blocks(x)), self.words.weight)


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class GroupedQueries(nn.Module):
    """Llama's attention: rotary positions, two heads of keys and values for four of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.key, self.value = nn.Linear(WIDTH, WIDTH // 2, bias=False), nn.Linear(WIDTH, WIDTH // 2, bias=False)
        angles = torch.arange(TOKENS)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def turned(self, x: Tensor) -> Tensor:
        one, two = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * self.cos + torch.cat((-two, one), -1) * self.sin

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query = self.turned(self.query(x).view(batch, tokens, 4, 4).transpose(1, 2))
        key = self.turned(self.key(x).view(batch, tokens, 2, 4).transpose(1, 2))
        value = self.value(x).view(batch, tokens, 2, 4).transpose(1, 2)
        key, value = (y[:, :, None].expand(batch, 2, 2, tokens, 4).reshape(batch, 4, tokens, 4) for y in (key, value))
        scores = (query @ key.transpose(2, 3)) * 0.5 + torch.full((tokens, tokens), -1e4).triu(1)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, WIDTH)
        return self.out(mixed)


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(WORDS, WIDTH), GroupedQueries()
        self.norm1, self.norm2, self.norm3 = RmsNorm(), RmsNorm(), RmsNorm()
        self.gate, self.up = nn.Linear(WIDTH, 24, bias=False), nn.Linear(WIDTH, 24, bias=False)
        self.down, self.head = nn.Linear(24, WIDTH, bias=False), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return self.head(self.norm3(x + self.down(F.silu(self.gate(y)) * self.up(y))))


class Bert(nn.Module):
    """Torch's own encoder layer, which normalises behind its branches."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=True, activation="gelu")
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.words(ids))[:, 0])


class Conformer(nn.Module):
    """A gated linear unit and a depthwise convolution over the tokens, in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.depthwise = nn.Conv1d(WIDTH, 24, 1), nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.batch_norm, self.narrow, self.head = nn.BatchNorm1d(12), nn.Conv1d(12, WIDTH, 1), nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        y = F.glu(self.wide(self.norm(x).transpose(1, 2)), dim=1)
        y = self.narrow(F.silu(self.batch_norm(self.depthwise(y))))
        return self.head((x + y.transpose(1, 2)).mean(1))


class Recurrent(nn.Module):
    """An LSTM between an embedding and a classifier with a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inside = nn.Embedding(WORDS, WIDTH), nn.LSTM(WIDTH, 12, batch_first=True)
        self.hidden, self.head = nn.Linear(12, 10), nn.Linear(10, 5)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.inside(self.words(ids))
        return self.head(F.relu(self.hidden(states[:, -1])))


class Convolutional(nn.Module):
    """A stem, blocks and a head."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Sequential(*blocks), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


IMAGES: dict[str, Callable[[], nn.Module]] = {
    "shufflenet": lambda: Convolutional(ShuffleUnit(16), ShuffleUnit(16)),
    "convnext": lambda: Convolutional(ConvNeXtBlock(16), ConvNeXtBlock(16)),
    "unet with group norm": GroupNormUNet,
    "vit": VisionTransformer,
    "swin": Swin,
    "mixer": Mixer,
}
TEXTS: dict[str, Callable[[], nn.Module]] = {
    "gpt": Gpt,
    "llama": Llama,
    "bert": Bert,
    "conformer": Conformer,
    "lstm": Recurrent,
}
