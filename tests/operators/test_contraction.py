"""Products that sum: what each letter of MatMul, Gemm and Einsum means for channels, and random products by numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_asgnas.errors import TargetError
from tests.operators.cutting import cut_half, free_groups, model_of, normal, sizes_of
from tests.operators.labelling import constants_of, coupling_of, groups_at, reasons

ARRAYS = {
    "w": normal(5, 12),
    "v": normal(5, 12, seed=1),
    "u": normal(5, 12, seed=2),
    "end": normal(12, 3, seed=3),
    "turned": normal(3, 12, seed=4),
    "last": normal(3, 3, seed=5),
    "bias12": normal(12, seed=6),
    "bias3": normal(3, seed=7),
    "scalar": normal(1, seed=8),
    "row": normal(1, 3, seed=11),
    "mix": normal(2, 6, seed=12),
    "unmix": normal(6, 2, seed=13),
    "per_head": normal(4, 3, 6, seed=9),
    "end24": normal(24, 3, seed=10),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
    "back24": np.array([0, 0, 24], np.int64),
}

HEADS = """q0 = MatMul (x, w)  q1 = Reshape (q0, to_heads)  q = Transpose <perm = [0, 2, 1, 3]> (q1)
           k0 = MatMul (x, v)  k1 = Reshape (k0, to_heads)  k = Transpose <perm = [0, 2, 3, 1]> (k1)
           v0 = MatMul (x, u)  v1 = Reshape (v0, to_heads)  v2 = Transpose <perm = [0, 2, 1, 3]> (v1)"""
END = "o1 = Transpose <perm = [0, 2, 1, 3]> (o)  m = Reshape (o1, back)  y = MatMul (m, end)"


def tokens(text: str, more: str = "") -> onnx.ModelProto:
    """A model on tokens x [N, 2, 5]."""
    return model_of(f"(float[N, 2, 5] x{more}) => (float[N, 2, 3] y) {{ {text} }}", ARRAYS)


@pytest.mark.parametrize(
    "text",
    [
        "h = MatMul (x, w)  y = MatMul (h, end)",
        'h = Einsum <equation = "ntc, cd -> ntd"> (x, w)  y = Einsum <equation = "ntd, od -> nto"> (h, turned)',
        'h = Einsum <equation = "cd, ntc -> ntd"> (w, x)  y = MatMul (h, end)',
        'h = MatMul (x, w)  t = Transpose <perm = [2, 0, 1]> (h)  y = Einsum <equation = "dnt, do -> nto"> (t, end)',
    ],
)
def test_a_weight_loses_the_columns_that_read_and_the_rows_that_make(text: str) -> None:
    model = tokens(text)
    assert groups_at(coupling_of(model), "h").reshape(-1).tolist() == list(range(12))
    compact = sizes_of(cut_half(model).compact)
    assert compact["w"] == [5, 6]
    assert compact.get("end", [6, 3]) == [6, 3]
    assert compact.get("turned", [3, 6]) == [3, 6]


@pytest.mark.parametrize(
    ("attributes", "weight", "bias", "made"),
    [("<transB = 1>", "turned", "bias3", 2), ("", "end", "bias3", 2), ("", "end", "scalar", 3), ("", "end", "row", 2)],
)
def test_gemm(attributes: str, weight: str, bias: str, made: int) -> None:
    """One number that is added to all channels is not zero with any of them, a row of numbers is cut with them."""
    text = f"""(float[3, 5] x) => (float[a, b] y) {{ h = Gemm (x, w, bias12)
        r = Gemm {attributes} (h, {weight}, {bias})  y = MatMul (r, last) }}"""
    compact = sizes_of(cut_half(model_of(text, ARRAYS)).compact)
    assert (compact["w"], compact["bias12"]) == ([5, 6], [6])
    assert compact[weight] == ([made, 6] if attributes else [6, made])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r = Gemm (h, end, z)", "Gemm adds an activation"),
        ("r = Gemm <transB = 1> (h, h, bias3)", "Gemm of two activations and a bias"),
        ("r = Gemm <transA = 1> (h, last, bias3)", "a bias is added to an axis that carries no channels"),
    ],
)
def test_forms_of_gemm_that_keep_channels(text: str, reason: str) -> None:
    text = f"(float[3, 5] x, float[3, 3] z) => (float[a, b] y) {{ h = Gemm (x, w)  {text}  y = MatMul (r, last) }}"
    assert reason in reasons(coupling_of(model_of(text, ARRAYS)))


@pytest.mark.parametrize(
    ("scores", "product"),
    [
        ("s = MatMul (q, k)  p = Softmax <axis = -1> (s)", "o = MatMul (p, v2)"),
        (
            'kt = Transpose <perm = [0, 1, 3, 2]> (k)  s = Einsum <equation = "bhid, bhjd -> bhij"> (q, kt)',
            'o = Einsum <equation = "bhij, bhjd -> bhid"> (s, v2)',
        ),
        ("s = MatMul (k, v2)", "o = MatMul (q, s)"),  # linear attention: Kᵀ V, with nothing between
        ("t = Softmax <axis = -1> (k)  s = MatMul (t, v2)", "o = MatMul (q, s)"),
    ],
)
def test_heads_leave_with_their_queries_keys_and_values(scores: str, product: str) -> None:
    model = tokens(f"{HEADS}  {scores}  {product}  {END}")
    coupling = coupling_of(model)
    assert groups_at(coupling, "q0").reshape(4, 3).tolist() == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]
    result = cut_half(model)
    assert free_groups(result) == 4
    assert [sizes_of(result.compact)[name] for name in ("w", "v", "u", "end")] == [[5, 6], [5, 6], [5, 6], [6, 3]]
    assert {tuple(values) for values in constants_of(result.compact)} == {(0, 0, 2, 3), (0, 0, 6)}


def test_one_head_loses_queries_with_keys_and_values_by_themselves() -> None:
    text = """q = MatMul (x, w)  k0 = MatMul (x, v)  k = Transpose <perm = [0, 2, 1]> (k0)  u0 = MatMul (x, u)
        s = MatMul (q, k)  p = Softmax <axis = -1> (s)  o = MatMul (p, u0)  y = MatMul (o, end)"""
    model = tokens(text)
    assert coupling_of(model).channel_groups() == (27, 24)
    result = cut_half(model)
    assert [sizes_of(result.compact)[name] for name in ("w", "v", "u", "end")] == [[5, 6], [5, 6], [5, 6], [6, 3]]


def test_keys_times_values_of_one_head_keep_the_labels_of_one_side() -> None:
    """Kᵀ V [d, e] would carry labels along both axes: those of the keys go on, the values stay."""
    text = """k0 = MatMul (x, v)  k = Transpose <perm = [0, 2, 1]> (k0)  u0 = MatMul (x, u)
        s = MatMul (k, u0)  q = MatMul (x, w)  o = MatMul (q, s)  y = MatMul (o, end)"""
    model = tokens(text)
    assert "MatMul of two activations sums over a part of them" in reasons(coupling_of(model))
    compact = sizes_of(cut_half(model).compact)
    assert [compact[name] for name in ("w", "v", "u", "end")] == [[5, 6], [5, 6], [5, 12], [12, 3]]


def test_one_weight_for_each_head_is_cut_along_its_batch() -> None:
    text = """o = MatMul (q, per_head)  o1 = Transpose <perm = [0, 2, 1, 3]> (o)  m = Reshape (o1, back24)
        y = MatMul (m, end24)"""
    compact = sizes_of(cut_half(tokens(HEADS + text)).compact)
    assert (compact["w"], compact["per_head"], compact["end24"]) == ([5, 6], [2, 3, 6], [12, 3])


def test_heads_stay_where_they_meet_something_of_fixed_heads() -> None:
    """The queries are an input, so the scores have all their heads, and so must the values."""
    text = f"{HEADS}  s = MatMul (z, k)  p = Softmax <axis = -1> (s)  o = MatMul (p, v2)  {END}"
    coupling = coupling_of(tokens(text, ", float[N, 4, 2, 3] z"))
    assert coupling.channel_groups()[1] == 0
    assert "MatMul with an operand whose channels cannot leave" in reasons(coupling)


def test_channels_that_stay_are_in_nobodys_way() -> None:
    """A mixer of tokens makes channels along one axis while those of the other go on: only once these stay, as the
    network gives them, the mixer's own are free.
    """
    text = """(float[N, 2, 5] x) => (float[N, 2, 12] y, float[N, 2, 12] h) { h = MatMul (x, w)
        t = Transpose <perm = [0, 2, 1]> (h)  a = MatMul (t, mix)  r = Relu (a)  b = MatMul (r, unmix)
        y = Transpose <perm = [0, 2, 1]> (b) }"""
    model = model_of(text, ARRAYS)
    assert groups_at(coupling_of(model), "a").reshape(-1).tolist() == list(range(6))
    compact = sizes_of(cut_half(model).compact)
    assert compact == {"w": [5, 12], "mix": [2, 3], "unmix": [3, 2]}


def test_keys_that_stay_do_not_hold_the_values() -> None:
    text = """(float[N, 2, 5] x) => (float[N, 2, 3] y, float[N, 2, 12] k0) { q = MatMul (x, w)  k0 = MatMul (x, v)
        k = Transpose <perm = [0, 2, 1]> (k0)  u0 = MatMul (x, u)  s = MatMul (q, k)  o = MatMul (s, u0)
        y = MatMul (o, end) }"""
    compact = sizes_of(cut_half(model_of(text, ARRAYS)).compact)
    assert [compact[name] for name in ("w", "v", "u", "end")] == [[5, 12], [5, 12], [5, 6], [6, 3]]


@pytest.mark.parametrize(("equation", "inputs"), [("ntd, ntd, do -> nto", "h, h, end"), ("...d, do -> ...o", "h, end")])
def test_what_is_not_taken_apart_keeps_its_channels(equation: str, inputs: str) -> None:
    model = tokens(f'h = MatMul (x, w)  y = Einsum <equation = "{equation}"> ({inputs})')
    assert "this form of Einsum is not taken apart" in reasons(coupling_of(model))


@pytest.mark.parametrize("op", ["MatMul (x, u)", "MatMul (u, x)", 'Einsum <equation = "ij, jk -> ik"> (x, u)'])
def test_operands_of_unknown_shape_keep_channels(op: str) -> None:
    text = f"(float[2, 12] z) => (float[a, b] y) {{ x = MatMul (z, square)  u = our.own.Twist (z)  y = {op} }}"
    model = model_of(text, {"square": normal(12, 12)})
    model.opset_import.append(onnx.helper.make_opsetid("our.own", 1))
    assert any("operand is unknown" in reason for reason in reasons(coupling_of(model)))


LETTERS = "abcd"
SIZES = dict(zip(LETTERS, (2, 3, 4, 6), strict=True))


@st.composite
def products(draw: st.DrawFn) -> tuple[str, str, str, str, str, bool]:
    """An equation of two operands, the letter of each that carries channels, and whether the second is a weight."""
    one = "".join(draw(st.permutations(LETTERS))[: draw(st.integers(1, 4))])
    two = "".join(draw(st.permutations(LETTERS))[: draw(st.integers(1, 4))])
    letters = sorted(set(one + two))
    output = "".join(draw(st.lists(st.sampled_from(letters), min_size=1, unique=True)))
    return one, two, output, draw(st.sampled_from(one)), draw(st.sampled_from(two)), draw(st.booleans())


@settings(max_examples=40)
@given(products())
def test_random_products_are_exact(case: tuple[str, str, str, str, str, bool]) -> None:
    """Channels on any letter of either operand: the cut network gives the same, whatever the letter means."""
    one, two, output, first, second, weight = case
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def operand(name: str, letters: str, channels: str) -> tuple[str, str]:
        """An input without the axis of the channels, and a product with a weight that makes them."""
        bare = [str(SIZES[x]) for x in letters if x != channels]
        arrays[f"w_{name}"] = random.normal(size=(5, SIZES[channels]))
        free = letters.replace(channels, "z")
        text = f'{name} = Einsum <equation = "{free}, z{channels} -> {letters}"> (x_{name}, w_{name})'
        shape = ", ".join("5" if x == "z" else str(SIZES[x]) for x in free)
        assert len(bare) == len(letters) - 1
        return f"double[{shape}] x_{name}", text

    given_one, text_one = operand("p", one, first)
    given_two, text_two = operand("q", two, second)
    if weight:
        given_two, text_two = "", ""
        arrays["q"] = random.normal(size=[SIZES[x] for x in two])
    arrays["scale"] = random.normal(size=[SIZES[x] for x in output])
    inputs = ", ".join(filter(None, (given_one, given_two)))
    text = f"""({inputs}) => (double y) {{ {text_one}  {text_two}
        r = Einsum <equation = "{one}, {two} -> {output}"> (p, q)  m = Mul (r, scale)
        y = ReduceSum <keepdims = 0> (m) }}"""
    try:
        cut_half(model_of(text, arrays))
    except TargetError as error:
        assert "nothing to remove" in str(error)
