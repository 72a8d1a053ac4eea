"""The networks that `make converters` converts, compares and prunes: a row for each kind of source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A source, with `{files}` for the folder that the row's script has filled; and what `convert` is told.

    `linear` ones have nothing to prune, and must be refused with that reason.
    """

    source: str
    inputs: tuple[str, ...] = ()
    backend: str | None = None
    trust: bool = False
    linear: bool = False


@dataclass(frozen=True)
class Row:
    """Networks of one framework, and the script, with the environment that runs it (None: this one), for its files."""

    networks: tuple[Network, ...]
    script: str | None = None
    environment: str | None = None


_IMAGE = "image:float32[N,3,16,16]"
_TOKENS = "sequence:float32[N,T,16]"
_KERAS = "keras:keras_nets:application?name"
_IDS, _MASK, _TYPES = (f"{name}:int64[N,T]" for name in ("input_ids", "attention_mask", "token_type_ids"))

ROWS: dict[str, Row] = {
    "torch": Row(
        (
            Network("torch:torch_nets:ResNet?width=8", (_IMAGE,)),
            Network("torch:torch_nets:encoder", ("src:float32[N,T,16]",)),
            Network("torch:torch_nets:Fused", ("batch.image:float32[N,3,16,16]", "batch.mask:float32[N,16,16]")),
            Network("torch:torch_nets:Pair", ("pair.0:float32[N,4,T]", "pair.1:float32[N,6]")),
            Network("torch:{files}/resnet.pt2"),
            Network("torch:{files}/encoder.pt2"),
            Network("torch:{files}/fused.pt2"),
            Network("torch:{files}/scripted.pt", (_IMAGE,)),
            Network("torch:{files}/recurrent.pt", (_TOKENS,)),
            Network("torch:{files}/traced.pt", (_IMAGE,)),
            Network("torch:{files}/pickled.pth", (_IMAGE,), trust=True),
        ),
        "write_torch.py",
    ),
    "torchvision": Row(
        (Network("torchvision:resnet18"), Network("torchvision:mobilenet_v2"), Network("torchvision:swin_t")),
    ),
    "timm": Row(
        (
            Network("timm:resnet18"),
            Network("timm:efficientnet_b0"),
            Network("timm:convnext_atto?ls_init_value=1.0"),
            Network("timm:vit_tiny_patch16_224"),
        ),
    ),
    "hf": Row(
        (
            Network("hf:{files}/bert", (_IDS, _MASK, _TYPES)),
            Network("hf:{files}/gpt2"),
            Network("hf:{files}/llama"),
            Network("hf:{files}/t5"),
            Network("hf:{files}/vit"),
        ),
        "write_huggingface.py",
        "torch",
    ),
    "keras": Row(
        (
            Network(f"{_KERAS}=MobileNetV2"),
            Network(f"{_KERAS}=ResNet50"),
            Network("keras:{files}/densenet121.keras"),
            Network("keras:keras_nets:residual"),
            Network("keras:keras_nets:two_inputs"),
            Network("keras:keras_nets:recurrent"),
            Network(f"{_KERAS}=MobileNetV2", backend="tensorflow"),
            Network("keras:keras_nets:residual", backend="tensorflow"),
            Network("keras:keras_nets:two_inputs", backend="tensorflow"),
            Network(f"{_KERAS}=MobileNetV2", backend="jax"),
            Network("keras:keras_nets:residual", backend="jax"),
            Network("keras:keras_nets:two_inputs", backend="jax"),
        ),
        "write_keras.py",
        "keras",
    ),
    "sklearn": Row(
        (
            Network("sklearn:sklearn_nets:mlp"),
            Network("sklearn:{files}/mlp.joblib", trust=True),
            Network("sklearn:sklearn_nets:scaled"),
            Network("sklearn:sklearn_nets:tanh"),
            Network("sklearn:sklearn_nets:linear", linear=True),
            Network("sklearn:sklearn_nets:ridge", linear=True),
        ),
        "sklearn_nets.py",
        "sklearn",
    ),
    "jax": Row(
        (
            Network("jax:jax_nets:Residual", ("image:float32[N,16,16,3]",)),
            Network("jax:jax_nets:Encoder", ("image:float32[N,16,16,3]",)),
            Network("jax:jax_nets:mnist", ("x:float32[N,28,28,1]",)),
            Network("jax:jax_nets:resnet18", ("x:float32[N,32,32,3]",)),
            Network("jax:jax_nets:perceptron", ("x:float32[N,12]",)),
            Network("jax:jax_nets:plain", ("x:float32[N,6]",)),
        ),
    ),
    "saved_model": Row(
        tuple(
            Network(f"saved_model:{{files}}/{name}") for name in ("MobileNetV2", "EfficientNetB0", "residual", "LeNet")
        ),
        "write_tensorflow.py",
        "tensorflow",
    ),
    "tflite": Row(
        tuple(Network(f"tflite:{{files}}/{name}.tflite") for name in ("MobileNetV2", "EfficientNetB0", "LeNet")),
        "write_tensorflow.py",
        "tensorflow",
    ),
    "tensorflow": Row(
        (
            Network("tensorflow:tensorflow_nets:LeNet", ("image:float32[N,28,28,1]",)),
            Network("tensorflow:tensorflow_nets:mixer", ("x:float32[N,9,8]",)),
            Network("tensorflow:tensorflow_nets:two_inputs", ("features:float32[N,12]", "ids:int32[N,5]")),
        ),
    ),
    "paddle": Row(
        tuple(Network(f"paddle:{{files}}/{name}") for name in ("resnet18", "mobilenet_v2", "densenet121", "lenet")),
        "write_paddle.py",
        "paddle",
    ),
    "onnx": Row(
        tuple(
            Network(f"{{files}}/{name}.onnx")
            for name in ("resnet50", "squeezenet", "shufflenet", "external", "functions")
        ),
        "write_torch.py",
    ),
}
