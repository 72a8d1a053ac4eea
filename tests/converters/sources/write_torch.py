"""Write what is read here into a folder: exported programs, TorchScript, a pickle, and ONNX files of all kinds."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
import torch_nets


def write_torch(folder: Path) -> None:
    """Exported programs with open axes and with a dict, scripted and traced modules, a pickled one."""
    batch, length = torch.export.Dim("N"), torch.export.Dim("T")
    image = torch.randn(2, 3, 16, 16)
    resnet = torch_nets.ResNet(width=8).eval()
    torch.export.save(torch.export.export(resnet, (image,), dynamic_shapes=({0: batch},)), folder / "resnet.pt2")
    tokens = torch.randn(2, 7, 16)
    encoder = torch_nets.encoder().eval()
    torch.export.save(
        torch.export.export(encoder, (tokens,), dynamic_shapes=({0: batch, 1: length},)), folder / "encoder.pt2"
    )
    fused = torch_nets.Fused().eval()
    pair = {"image": image, "mask": torch.ones(2, 16, 16)}
    shapes = ({"image": {0: batch}, "mask": {0: batch}},)
    torch.export.save(torch.export.export(fused, (pair,), dynamic_shapes=shapes), folder / "fused.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(resnet).save(str(folder / "scripted.pt"))
        torch.jit.trace(torch_nets.Recurrent().eval(), tokens).save(str(folder / "recurrent.pt"))
        torch.jit.trace(resnet, image).save(str(folder / "traced.pt"))
    torch.save(resnet, folder / "pickled.pth")


def write_onnx(folder: Path) -> None:
    """Networks that the onnx package ships, in operator set 9; one with its weights beside it; one with functions."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for name in ("resnet50", "squeezenet", "shufflenet"):
        onnx.save(_with_weights(onnx.load(light / f"light_{name}.onnx")), folder / f"{name}.onnx")
    model = onnx.load(light / "light_squeezenet.onnx")
    model = onnx.version_converter.convert_version(_with_weights(model), 17)
    onnx.save(model, folder / "external.onnx", save_as_external_data=True, location="external.data")
    onnx.save(_with_functions(), folder / "functions.onnx")


def _with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Random weights instead of the constants that the light models fill theirs with; inputs too, as was the custom."""
    random = np.random.default_rng(0)
    shapes = {t.name: tuple(numpy_helper.to_array(t).tolist()) for t in model.graph.initializer}
    filled = {n.output[0]: shapes[n.input[0]] for n in model.graph.node if n.op_type == "ConstantOfShape"}
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, shape in filled.items():
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.0
        values = random.normal(size=shape) * spread if spread else random.uniform(0.5, 1.5, shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return model


def _with_functions() -> onnx.ModelProto:
    """Two blocks by one local function."""
    model: onnx.ModelProto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
          h = local.block(x, w0, b0)
          i = local.block(h, w1, b1)
          y = Conv<pads = [1,1,1,1]>(i, w2, b2)
        }
        <domain: "local", opset_import: ["" : 17]>
        block (x, w, b) => (y) { c = Conv<pads = [1,1,1,1]>(x, w, b) y = Relu(c) }
    """)
    random = np.random.default_rng(0)
    for at, (out, channels) in enumerate(((12, 3), (16, 12), (4, 16))):
        for name, shape in ((f"w{at}", (out, channels, 3, 3)), (f"b{at}", (out,))):
            model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    return model


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_torch(target)
    write_onnx(target)
