"""timm: architectures that build their networks in ways that torchvision's do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import timm
from torch import nn

from tools.corpus.entry import Entry, image

_MODELS: tuple[tuple[str, float], ...] = (
    ("resnetv2_50", 25.5),  # normalisation before activation, standardised weights
    ("tf_efficientnet_lite0", 4.7),  # padding as in TensorFlow
    ("mixer_s16_224", 18.5),  # mixes over tokens by a transposed dense layer
    ("convnextv2_atto", 3.7),  # global response normalisation
    ("swin_s3_tiny_224", 28.3),
    ("deit_tiny_distilled_patch16_224", 5.9),  # two class tokens and two heads
    ("regnetz_040", 27.1),
    ("ghostnet_100", 5.2),  # cheap features joined to the real ones
    ("hrnet_w18_small", 13.2),  # resolutions side by side, all joined with all
    ("coat_lite_tiny", 5.7),
    ("pvt_v2_b0", 3.7),
    ("levit_128s", 7.8),
    ("eca_nfnet_l0", 24.1),  # no normalisation, scaled and standardised weights
    ("edgenext_xx_small", 1.3),  # attention over channels
    ("maxvit_rmlp_pico_rw_256", 7.5),
    ("res2net50_26w_4s", 25.7),  # split into scales, each added to the next
    ("resnest14d", 10.6),  # split attention
    ("skresnet18", 12.0),
    ("dla34", 15.7),
    ("cspresnet50", 21.6),
    ("ese_vovnet19b_dw", 6.5),
    ("dpn48b", 9.1),  # residual and dense at once
    ("inception_next_tiny", 28.1),
    ("repvgg_a0", 9.1),
    ("mobileone_s0", 5.3),
    ("mobilevit_xxs", 1.3),
    ("mobilenetv4_conv_small", 3.8),
    ("lcnet_050", 1.9),
    ("rexnet_100", 4.8),
    ("selecsls42", 30.4),
    ("xception41", 27.0),
    ("poolformer_s12", 11.9),
    ("caformer_s18", 26.3),
    ("convmixer_768_32", 21.1),
    ("gmlp_s16_224", 19.4),  # gates over tokens
    ("resmlp_12_224", 15.3),
    ("visformer_tiny", 10.3),
    ("twins_svt_small", 24.1),
    ("xcit_nano_12_p16_224", 3.1),  # attention between channels
    ("cait_xxs24_224", 12.0),  # heads that talk to one another
    ("crossvit_9_240", 8.6),
    ("tnt_s_patch16_224", 23.8),
    ("mvitv2_tiny", 24.2),
    ("davit_tiny", 28.4),
    ("focalnet_tiny_srf", 28.4),
    ("efficientformer_l1", 12.3),
    ("fastvit_t8", 4.0),
    ("repvit_m0_9", 5.5),
    ("tiny_vit_5m_224", 12.1),
    ("efficientvit_b0", 3.4),  # linear attention
    ("gcresnext26ts", 10.5),
    ("botnet26t_256", 12.5),
    ("halonet26t", 12.5),
    ("lambda_resnet26t", 11.0),
    ("hiera_tiny_224", 27.9),
    ("volo_d1_224", 26.6),
    ("pit_ti_224", 4.9),
    ("sequencer2d_s", 27.7),  # LSTMs over rows and columns
    ("nest_tiny", 17.1),
    ("eva02_tiny_patch14_224", 5.8),  # rotary positions, gated MLP
    ("beit_base_patch16_224", 86.5),
)
_FIRST = 16
_SIZES = {"crossvit_9_240": 240, "maxvit_rmlp_pico_rw_256": 256, "botnet26t_256": 256, "halonet26t": 256}
_VARIANTS: tuple[tuple[str, str, dict[str, Any], float], ...] = (
    ("vit_small_qk_norm_layer_scale", "vit_small_patch16_224", {"qk_norm": True, "init_values": 1e-5}, 22.1),
    ("vit_tiny_registers_average_pool", "vit_tiny_patch16_224", {"reg_tokens": 4, "global_pool": "avg"}, 5.7),
    (
        "resnet26_blurpool_se",
        "resnet26d",
        {"aa_layer": timm.layers.BlurPool2d, "block_args": {"attn_layer": "se"}},
        17.0,
    ),
)


def entries() -> Iterator[Entry]:
    """The networks of timm, those that differ most from one another first."""
    for position, (name, millions) in enumerate(_MODELS):
        rank = 2 if position < _FIRST else 4
        yield _entry(name, _builder(name), _SIZES.get(name, 256 if name.startswith("lambda") else 224), millions, rank)
    for name, base, options, millions in _VARIANTS:
        yield _entry(name, _builder(base, **options), 224, millions, 2)


def _entry(name: str, build: Callable[[str], nn.Module], size: int, millions: float, rank: int) -> Entry:
    return Entry(name=f"timm_{name}", family="timm", build=build, example=image(size), millions=millions, rank=rank)


def _builder(name: str, **options: Any) -> Callable[[str], nn.Module]:
    def build(attention: str) -> nn.Module:
        timm.layers.set_fused_attn(attention == "sdpa")
        module: nn.Module = timm.create_model(name, pretrained=False, exportable=True, **options)
        return module

    return build
