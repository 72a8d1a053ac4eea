"""Attention of the standard and of onnxruntime, in matrices: softmax(q k^T · scale + bias) v, for every head.

Everything is [N, heads, length, width] inside. A row that may look at nothing gives zeros, and a gradient of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from onnx_asgnas.training.lowering.registry import MICROSOFT, rewrite
from onnx_asgnas.training.lowering.site import Dim, Site, Value

_NEVER = -1e30
"""Added to a score that must not count: its exponential is zero, and it is not infinite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Queries, keys and values by head, and what is added to the scores or excludes some of them."""

    q: Value
    k: Value
    v: Value
    scale: float
    bias: Value | None = None
    allowed: Value | None = None
    softcap: float = 0.0

    def scores(self) -> tuple[Value, Value, Value]:
        """The scaled scores, those capped, and those with the bias: [N, heads, L, S] each."""
        root = sqrt(self.scale)
        raw = (self.q * root) @ (self.k * root).transpose(0, 1, 3, 2)
        capped = (raw * (1 / self.softcap)).tanh() * self.softcap if self.softcap else raw
        return raw, capped, capped if self.bias is None else capped + self.bias

    def attend(self, scores: Value) -> tuple[Value, Value]:
        """The attention weights, and what they give."""
        site = scores.site
        if self.allowed is None:
            weights = scores.softmax()
        else:
            weights = site.where(self.allowed, scores, _NEVER).softmax()
            weights = site.where(self.allowed, weights, 0.0)
        return weights, weights @ self.v


def split_heads(x: Value, heads: int) -> Value:
    """[N, L, heads · width] to [N, heads, L, width]."""
    return x.reshape(x.dim(0), x.dim(1), heads, -1).transpose(0, 2, 1, 3)


def joined_heads(x: Value) -> Value:
    """[N, heads, L, width] to [N, L, heads · width]."""
    batch, heads, length, width = x.dims()
    whole = heads * width if isinstance(heads, int) and isinstance(width, int) else -1
    return x.transpose(0, 2, 1, 3).reshape(batch, length, whole)


def repeated_heads(x: Value, times: int) -> Value:
    """Every key or value head for as many query heads that share it."""
    if times == 1:
        return x
    batch, heads, length, width = x.dims()
    assert isinstance(heads, int)
    wide = x.site.concat([x.unsqueeze(2)] * times, 2)
    return wide.reshape(batch, heads * times, length, width)


def causal(site: Site, queries: Dim, keys: Dim, offset: Dim) -> Value:
    """Which keys a query may see: those up to its own place, `offset` further on."""
    rows, columns = site.range(queries).unsqueeze(1), site.range(keys).unsqueeze(0)
    if isinstance(offset, Value) or offset:
        rows = rows + (offset if isinstance(offset, Value) else site.ints(offset))
    return columns <= rows


def _window(site: Site, queries: Dim, keys: Dim, offset: Dim, until: int) -> Value | None:
    """Which keys are near enough to a query: so many before it and `until` behind it, where that is not negative."""
    rows, columns = site.range(queries).unsqueeze(1), site.range(keys).unsqueeze(0)
    rows = rows + (offset if isinstance(offset, Value) else site.ints(offset))
    since = site.attribute("left_window_size", -1)
    before = columns >= rows - site.ints(since) if since >= 0 else None
    after = columns <= rows + site.ints(until) if until >= 0 else None
    return both(site, before, after)


def both(site: Site, *masks: Value | None) -> Value | None:
    """Where all of these masks allow it."""
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    whole = given[0]
    for mask in given[1:]:
        whole = site.op("And", whole, mask)
    return whole


@rewrite("Attention")
def rewrite_attention(site: Site) -> list[Value | None]:
    """Attention of opset 23 and newer."""
    q, k, v = (site.input(at) for at in range(3))
    flat = q.rank == 3
    if flat:
        q = split_heads(q, site.attribute("q_num_heads"))
        k, v = (split_heads(x, site.attribute("kv_num_heads")) for x in (k, v))
    past: Dim = 0
    if site.has(4):
        past = site.input(4).dim(2)
        k, v = (site.concat([site.input(at), x], 2) for at, x in ((4, k), (5, v)))
    present = k, v
    times = q.fixed_size(1, "heads") // k.fixed_size(1, "heads")
    width = q.fixed_size(3, "scale")
    scale = site.attribute("scale") or 1 / sqrt(width)
    bias, allowed = _standard_mask(site, k.dim(2))
    lengths = site.input(6) if site.has(6) else None
    if lengths is not None:
        lengths = lengths.reshape(-1, 1, 1, 1)
        allowed = both(site, allowed, site.range(k.dim(2)) < lengths)
    offset = past if lengths is None else lengths - site.lengths([q.dim(2)])
    until = 0 if site.attribute("is_causal", 0) else site.attribute("right_window_size", -1)
    allowed = both(site, allowed, _window(site, q.dim(2), k.dim(2), offset, until))
    heads = Heads(
        q=q,
        k=repeated_heads(k, times),
        v=repeated_heads(v, times),
        scale=scale,
        bias=bias,
        allowed=allowed,
        softcap=site.attribute("softcap", 0.0),
    )
    return _standard_outputs(site, heads, present, flat=flat)


def _standard_mask(site: Site, keys: Dim) -> tuple[Value | None, Value | None]:
    """The mask as something that is added, or as which keys are allowed; a short one excludes the keys behind it."""
    if not site.has(3):
        return None, None
    mask = site.input(3)
    if isinstance(keys, int) and mask.shape[-1] not in (None, 1, keys):
        missing = keys - mask.fixed_size(-1, "mask")
        pads = [0] * (2 * mask.rank - 1) + [missing]
        if mask.dtype == np.bool_:
            numbers = site.op("Pad", mask.cast(np.float32), np.array(pads, np.int64))
            return None, numbers > 0.5
        return site.op("Pad", mask, np.array(pads, np.int64), np.array(-np.inf, mask.dtype)), None
    if mask.dtype == np.bool_:
        return None, mask
    seen = mask.detach() > float(np.finfo(np.float32).min) / 2
    return site.where(seen, mask, 0.0), seen


def _standard_outputs(site: Site, heads: Heads, present: tuple[Value, Value], *, flat: bool) -> list[Value | None]:
    raw, capped, biased = heads.scores()
    weights, result = heads.attend(biased)
    mode = site.attribute("qk_matmul_output_mode", 0)
    shown = None
    if site.wants(3):
        masked = biased if heads.allowed is None else site.where(heads.allowed, biased, -np.inf)
        shown = [raw, capped, masked, weights][mode]
    keys, values = (x if site.wants(at) else None for at, x in ((1, present[0]), (2, present[1])))
    return [joined_heads(result) if flat else result, keys, values, shown]


@rewrite("Attention", domain=MICROSOFT)
def rewrite_packed_attention(site: Site) -> Value:
    """com.microsoft.Attention: one projection to queries, keys and values."""
    _refuse_caches(site, (4, 6))
    x, weight, heads = site.input(0), site.input(1), site.attribute("num_heads")
    whole = x @ weight
    if site.has(2):
        whole = whole + site.input(2)
    total = weight.fixed_size(1, "projection")
    sizes = site.attribute("qkv_hidden_sizes") or [total // 3] * 3
    q, k, v = (split_heads(part, heads) for part in whole.split(2, sizes))
    allowed = _padding(site, 3, q.dim(2))
    if site.attribute("unidirectional", 0):
        allowed = both(site, allowed, causal(site, q.dim(2), k.dim(2), 0))
    scale = site.attribute("scale") or 1 / sqrt(sizes[0] // heads)
    made = Heads(q=q, k=k, v=v, scale=scale, bias=_bias(site, 5), allowed=allowed)
    return joined_heads(made.attend(made.scores()[2])[1])


@rewrite("MultiHeadAttention", domain=MICROSOFT)
def rewrite_multi_head_attention(site: Site) -> Value:
    """com.microsoft.MultiHeadAttention: queries, keys and values of their own."""
    _refuse_caches(site, (6, 7))
    if not (site.has(1) and site.has(2)) or site.input(1).rank != 3:
        raise site.refusal("its keys and values are packed")
    q, k, v = (site.input(at) for at in range(3))
    heads = site.attribute("num_heads")
    if site.has(3):
        sizes = [x.fixed_size(2, "bias") for x in (q, k, v)]
        parts = site.input(3).split(0, sizes)
        q, k, v = (x + part for x, part in zip((q, k, v), parts, strict=True))
    scale = site.attribute("scale") or 1 / sqrt(q.fixed_size(2, "scale") // heads)
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    allowed = _padding(site, 4, k.dim(2))
    if site.attribute("unidirectional", 0):
        allowed = both(site, allowed, causal(site, q.dim(2), k.dim(2), 0))
    made = Heads(q=q, k=k, v=v, scale=scale, bias=_bias(site, 5), allowed=allowed)
    return joined_heads(made.attend(made.scores()[2])[1])


@rewrite("GroupQueryAttention", domain=MICROSOFT)
def rewrite_group_query_attention(site: Site) -> list[Value | None]:
    """com.microsoft.GroupQueryAttention on a whole prompt: causal, with fewer key heads than query heads."""
    _refuse_caches(site, (3, 4), even_empty=True)
    heads, groups = site.attribute("num_heads"), site.attribute("kv_num_heads")
    q = site.input(0)
    if site.has(1):
        k, v = site.input(1), site.input(2)
    else:
        width = q.fixed_size(2, "heads") // (heads + 2 * groups)
        q, k, v = q.split(2, [heads * width, groups * width, groups * width])
    q, k, v = split_heads(q, heads), split_heads(k, groups), split_heads(v, groups)
    if site.attribute("do_rotary", 0):
        tables = site.input(7), site.input(8)
        length = q.dim(2)
        cos, sin = (table.slice(0, 0, length).unsqueeze(0, 1) for table in tables)
        interleaved = bool(site.attribute("rotary_interleaved", 0))
        q, k = (rotated(x, cos, sin, interleaved=interleaved) for x in (q, k))
    allowed = both(site, causal(site, q.dim(2), k.dim(2), 0))
    window = site.attribute("local_window_size", -1)
    if window > 0:
        rows, columns = site.range(q.dim(2)).unsqueeze(1), site.range(k.dim(2)).unsqueeze(0)
        allowed = both(site, allowed, columns > rows - site.ints(window))
    scale = site.attribute("scale") or 1 / sqrt(q.fixed_size(3, "scale"))
    times = heads // groups
    made = Heads(
        q=q,
        k=repeated_heads(k, times),
        v=repeated_heads(v, times),
        scale=scale,
        allowed=allowed,
        softcap=site.attribute("softcap", 0.0),
    )
    return [joined_heads(made.attend(made.scores()[2])[1]), k, v]


def _refuse_caches(site: Site, positions: tuple[int, ...], *, even_empty: bool = False) -> None:
    """A cache of keys and values is for generating, not for training."""
    for position in positions:
        if site.has(position) and not (even_empty and 0 in site.input(position).shape):
            raise site.refusal("it reads a cache of keys and values")


def _bias(site: Site, position: int) -> Value | None:
    return site.input(position) if site.has(position) else None


def _padding(site: Site, position: int, keys: Dim) -> Value | None:
    """Which keys are no padding: from a mask of ones and zeros, or from the lengths of the sequences."""
    if not site.has(position):
        return None
    mask = site.input(position)
    if mask.rank == 1:
        if mask.shape[0] != site.input(0).shape[0]:
            raise site.refusal("its mask gives start and end places")
        return site.range(keys) < mask.cast(np.int64).reshape(-1, 1, 1, 1)
    seen = mask > site.constant(np.array(0, mask.dtype))
    return seen.unsqueeze(1, 2) if mask.rank == 2 else seen.unsqueeze(1) if mask.rank == 3 else seen


def rotated(x: Value, cos: Value, sin: Value, *, interleaved: bool, width: int | None = None) -> Value:
    """Pairs of entries turned by an angle for each place: [N, heads, L, D], with tables that broadcast to D / 2."""
    site, size = x.site, x.fixed_size(3, "rotation")
    width = width or size
    part = x.slice(3, 0, width) if width < size else x
    if interleaved:
        one, other = (part.slice(3, start, width, 2) for start in (0, 1))
    else:
        one, other = part.split(3, [width // 2] * 2)
    first, second = one * cos - other * sin, other * cos + one * sin
    if interleaved:
        pairs = site.concat([first.unsqueeze(4), second.unsqueeze(4)], 4)
        turned = pairs.reshape(*x.dims(0, 3), width)
    else:
        turned = site.concat([first, second], 3)
    return site.concat([turned, x.slice(3, width, size)], 3) if width < size else turned


@rewrite("RotaryEmbedding")
def rewrite_rotary_embedding(site: Site) -> Value:
    """RotaryEmbedding of opset 23."""
    return _rotary(site, cos=1, sin=2, places=3)


@rewrite("RotaryEmbedding", domain=MICROSOFT)
def rewrite_rotary_embedding_of_the_runtime(site: Site) -> Value:
    """com.microsoft.RotaryEmbedding: the places come first, and may be a single offset."""
    return _rotary(site, cos=2, sin=3, places=1)


def _rotary(site: Site, *, cos: int, sin: int, places: int) -> Value:
    x, width = site.input(0), site.attribute("rotary_embedding_dim", 0)
    flat = x.rank == 3
    tables = [site.input(cos), site.input(sin)]
    if flat:
        heads = site.attribute("num_heads", 0)
        if not heads:
            half = tables[0].fixed_size(-1, "rotation")
            heads = x.fixed_size(2, "heads") // (width or 2 * half)
        x = split_heads(x, heads)
    if site.has(places):
        at = site.input(places)
        if at.rank == 1:
            at = (site.range(x.dim(2)) + at).unsqueeze(0)
        tables = [table.gather(at, 0) for table in tables]
    angles = [table.unsqueeze(1) for table in tables]
    interleaved = bool(site.attribute("interleaved", 0))
    turned = rotated(x, *angles, interleaved=interleaved, width=width)
    return joined_heads(turned) if flat else turned
