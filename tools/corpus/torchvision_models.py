"""torchvision: all of its classifiers, its segmentation and detection networks, and some for video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torchvision import models

from tools.corpus.entry import Entry, Tensors, image, numbers

_FIRST = (
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "regnet_x_400mf",
    "vit_b_16",
    "swin_t",
    "convnext_tiny",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
)
_RANKS = ((1, 30.0), (2, 60.0), (3, 100.0), (5, float("inf")))
_SIZES = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
_OPTIONS: dict[str, dict[str, Any]] = {
    "inception_v3": {"init_weights": False, "aux_logits": True},
    "googlenet": {"init_weights": False, "aux_logits": True},
}
_BOXES = {
    "box_score_thresh": 0.0,
    "box_detections_per_img": 16,
    "rpn_score_thresh": 0.0,
    "rpn_pre_nms_top_n_test": 64,
    "rpn_post_nms_top_n_test": 16,
}
_ANCHORS = {"score_thresh": 0.0, "topk_candidates": 64, "detections_per_img": 16}
_DETECTS_ALL: dict[str, dict[str, Any]] = {
    "fasterrcnn": _BOXES,
    "maskrcnn": _BOXES,
    "keypointrcnn": _BOXES,
    "fcos": _ANCHORS,
    "retinanet": _ANCHORS,
    "ssd": _ANCHORS,
    "ssdlite": _ANCHORS,
}
"""With random weights no score reaches the usual thresholds, and an empty list of boxes says nothing.

The best of thousands change places by rounding alone, so only a few are asked for.
"""
_VIDEO = ("r3d_18", "r2plus1d_18", "s3d", "mvit_v1_b", "swin3d_t")


class _Segmentation(Tensors):
    def forward(self, x: Tensor) -> Any:
        """The maps of class scores, [N, classes, H, W]."""
        return self.flat(self.module(x))


class _Detection(Tensors):
    def forward(self, x: Tensor) -> Any:
        """The detections in the first image of the batch: boxes, labels and scores, and what else it finds."""
        return self.flat(self.module([x[0]])[0])


def entries() -> Iterator[Entry]:
    """The networks of torchvision."""
    for name in models.list_models(module=models):
        yield Entry(
            name=name,
            family="torchvision",
            build=_builder(name, **_OPTIONS.get(name, {})),
            example=image(_SIZES.get(name, 224)),
            millions=_millions(name),
            rank=0 if name in _FIRST else next(rank for rank, most in _RANKS if _millions(name) <= most),
        )
    for name in models.list_models(module=models.segmentation):
        build = _builder(name, _Segmentation, weights_backbone=None)
        yield _entry(name, "segmentation", build, image(128))
    for name in models.list_models(module=models.detection):
        size = 300 if name.startswith("ssd300") else 320
        options = _DETECTS_ALL[name.split("_")[0].rstrip("0123456789")]
        if not name.startswith("ssd"):
            options = options | {"min_size": size, "max_size": size}
        build = _builder(name, _Detection, weights_backbone=None, **options)
        yield _entry(name, "detection", build, image(size, batch=1))
    for name in _VIDEO:
        size = 224 if name.startswith(("mvit", "s3d")) else 112
        frames = 16 if name.startswith(("mvit", "s3d")) else 8
        yield _entry(name, "video", _builder(name), numbers(2, 3, frames, size, size, name="x"))


def _entry(name: str, kind: str, build: Callable[[str], nn.Module], example: Callable[[], Any]) -> Entry:
    return Entry(
        name=name, family=f"torchvision {kind}", build=build, example=example, millions=_millions(name), rank=2
    )


def _builder(name: str, around: type[nn.Module] | None = None, **options: Any) -> Callable[[str], nn.Module]:
    def build(_: str) -> nn.Module:
        module: nn.Module = models.get_model(name, weights=None, **options)
        return module if around is None else around(module)

    return build


def _millions(name: str) -> float:
    """Taken from the list of published weights, none of which is loaded."""
    published = models.get_model_weights(name)
    return float(next(iter(published)).meta["num_params"]) / 1e6 if len(published) else 30.0
