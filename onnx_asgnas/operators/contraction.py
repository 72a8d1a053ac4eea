"""Products that sum over axes of two tensors: MatMul, Gemm and Einsum, axes named by letters as in einsum.

What a letter is follows from where it stands: in both operands and the output it is a batch, in both but not in the
output it is summed over, in one and the output it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_asgnas.operators.labelled import Bits, Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.meeting import Operand, combine, meet


@dataclass(frozen=True, slots=True)
class Side:
    """One operand: its input position, and a letter for each of its axes."""

    position: int
    letters: str

    def axis(self, letter: str) -> int:
        """The axis of a letter, counted from the end."""
        return self.letters.index(letter) - len(self.letters)


def contract(flow: LabelFlow, one: Side, two: Side, output: str, bias: int | None = None) -> None:
    """The labels of a product of two operands, of which at least one is an activation.

    `bias` is the position of what is added afterwards, along the output's last axis.
    """
    if any(flow.rank(side.position) != len(side.letters) for side in (one, two)):
        flow.freeze_inputs("the rank of an operand is unknown")
    elif bias is not None and not flow.is_weight(bias):
        flow.freeze_inputs(f"{flow.node.op_type} adds an activation")
    elif flow.is_weight(two.position):
        _with_weight(flow, one, two, output, bias)
    elif flow.is_weight(one.position):
        _with_weight(flow, two, one, output, bias)
    elif bias is not None:
        flow.freeze_inputs(f"{flow.node.op_type} of two activations and a bias")
    else:
        _of_activations(flow, one, two, output)


def _with_weight(flow: LabelFlow, data: Side, weight: Side, output: str, bias: int | None) -> None:
    found = flow.read(data.position)
    letters = [data.letters[axis] for axis in found.long]
    kept = [x for x in letters if x in output and x not in weight.letters]
    batch = [x for x in letters if x in output and x in weight.letters]
    summed = [x for x in letters if x not in output]
    reason = f"{flow.node.op_type} sums over a part of them"
    if kept or batch:
        flow.book.conflict |= bool(summed) or any(x in output and x not in data.letters for x in weight.letters)
        keep = kept or batch[:1]
        found = flow.mix(found, [axis for axis in found.long if data.letters[axis] not in keep], reason)
        if not kept and found.any:
            axis = data.letters.index(batch[0])
            own = flow.weight_axis(weight.position, weight.axis(batch[0]), Kind.CUT)
            flow.tie(found.ids.reshape(-1), own, f"a batch of weights of channels that cannot leave, axis {axis}")
        flow.count_macs(found.ids)
        if bias is None or not found.any:
            flow.write(_placed(found, data.letters, output))
        else:
            flow.freeze(found.ids, "a bias is added to an axis that carries no channels")
        return
    columns: Ids = np.zeros(0, np.int64)
    if summed:
        keep_axis = found.long[0]
        found = flow.mix(found, found.long[1:], reason)
        letter = data.letters[keep_axis]
        vector = found.map(lambda array: array.reshape(-1))
        if letter in weight.letters:
            columns = flow.weight_axis(weight.position, weight.axis(letter), Kind.CUT)
            flow.contract(vector, columns)
        else:
            flow.needs_zero(vector)
    made = [x for x in weight.letters if x in output and x not in data.letters]
    if not made:
        flow.count_macs(columns)
        return
    rows = flow.weight_axis(weight.position, weight.axis(made[0]), Kind.PRODUCED)
    if bias is not None:
        _add_bias(flow, bias, rows, made[0] == output[-1])
    flow.count_macs(columns, rows)
    flow.write_channels(rows, True, len(output), output.index(made[0]))


def _add_bias(flow: LabelFlow, position: int, rows: Ids, last: bool) -> None:
    size = flow.size(position)
    if last and size and size[-1] == len(rows):
        flow.tie(rows, flow.weight_axis(position, -1, Kind.PRODUCED), "the bias is computed")
    else:
        flow.freeze(rows, "a bias of another length is added")


def _of_activations(flow: LabelFlow, one: Side, two: Side, output: str) -> None:
    reason = f"{flow.node.op_type} of two activations sums over a part of them"
    sides = (one, two)
    found = [flow.read(side.position) for side in sides]
    batch = {x for x in output if x in one.letters and x in two.letters}
    if any(side.letters[axis] in batch for side, f in zip(sides, found, strict=True) for axis in f.long):
        found = [
            flow.mix(f, [axis for axis in f.long if side.letters[axis] not in batch], reason)
            for side, f in zip(sides, found, strict=True)
        ]
        operands = []
        for side, f in zip(sides, found, strict=True):
            size = flow.size(side.position) or ()
            sizes = tuple(size[side.letters.index(x)] if x in batch and x in side.letters else 1 for x in output)
            operands.append(Operand(_placed(f, side.letters, output), sizes))
        together = meet(flow, operands[0], operands[1])
        shape = together.labels.ids.shape
        bits = [np.broadcast_to(_all_of_mixed(o.labels, shape), shape) for o in operands]
        flow.count_macs(together.labels.ids)
        flow.write(Labelled(together.labels.ids, combine(bits, any)))
        return
    _without_batch(flow, sides, found, output, reason)


def _all_of_mixed(found: Labelled, shape: tuple[int, ...]) -> Bits:
    gone = tuple(axis for axis, n in enumerate(found.zero.shape) if n > 1 and shape[axis] == 1)
    bits: Bits = np.logical_and.reduce(found.zero, axis=gone, keepdims=True) if gone else found.zero
    return bits


def _without_batch(flow: LabelFlow, sides: tuple[Side, Side], found: list[Labelled], output: str, reason: str) -> None:
    """Two operands none of which is labelled on a batch: what one keeps goes on, what both sum over is tied.

    Labels on an axis that the other operand sums over without labels stay, and of two kept axes those of the second.
    """
    flow.book.conflict |= found[0].any and found[1].any
    kept = [[x for x in _letters(side, f) if x in output] for side, f in zip(sides, found, strict=True)]
    if not any(kept):
        summed = [_letters(side, f) for side, f in zip(sides, found, strict=True)]
        if summed[0] == summed[1] and len(summed[0]) == 1:
            first, second = (f.map(lambda array: array.reshape(-1)) for f in found)
            flow.tie(first.ids, second.ids, reason)
            flow.needs_zero(Labelled(np.where(first.ids >= 0, first.ids, second.ids), first.zero | second.zero))
            flow.count_macs(first.ids)
            return
    found = [
        flow.mix(f, [axis for axis in f.long if side.letters[axis] not in output], reason)
        for side, f in zip(sides, found, strict=True)
    ]
    if found[0].any and found[1].any:
        flow.freeze(found[1].ids, reason)
    if found[0].any or found[1].any:
        at = 0 if found[0].any else 1
        flow.count_macs(found[at].ids)
        flow.write(_placed(found[at], sides[at].letters, output))


def _letters(side: Side, found: Labelled) -> list[str]:
    """The letters of the axes along which an operand is labelled."""
    return [side.letters[axis] for axis in found.long]


def _placed(found: Labelled, letters: str, output: str) -> Labelled:
    """Labels with their axes where the output has them; axes that it does not have carry none."""
    here = [x for x in output if x in letters]
    gone = tuple(axis for axis, x in enumerate(letters) if x not in output)
    slab = found.slab(gone) if gone else found
    order = [letters.index(x) for x in here] + list(gone)
    shape = [slab.ids.shape[letters.index(x)] if x in letters else 1 for x in output]
    return slab.map(lambda array: array.transpose(order).reshape(shape))
