"""Hugging Face's transformers, from configurations: widths, heads and structure as published, fewer layers and words.

No weights and no configuration are loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tools.corpus.entry import BATCH, TOKENS, Entry, Example, Tensors, image, numbers, tokens

WORDS = 2000


class Text(Tensors):
    """A network over tokens."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Ids and mask, [N, T]."""
        return self.flat(self.module(input_ids=input_ids, attention_mask=attention_mask))


class Generator(Tensors):
    """A network over tokens that keeps no cache."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Ids and mask, [N, T]."""
        output = self.module(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return output.logits


class Unmasked(Tensors):
    """A network over tokens that reads no mask."""

    def forward(self, input_ids: Tensor) -> Any:
        """Ids, [N, T]."""
        return self.module(input_ids=input_ids, use_cache=False).logits


class TwoTexts(Tensors):
    """An encoder with a decoder."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Any:
        """Ids and mask, [N, T], and the decoder's ids, [N, U]."""
        output = self.module(
            input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
        )
        return output.logits


class Image(Tensors):
    """A network over images."""

    def forward(self, pixel_values: Tensor) -> Any:
        """Images, [N, C, H, W]."""
        return self.flat(self.module(pixel_values=pixel_values))


class Detector(Tensors):
    """DETR: images, all of whose pixels count."""

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Any:
        """Images, [N, C, H, W], and their masks, [N, H, W]."""
        output = self.module(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return output.logits, output.pred_boxes


class ImageAndText(Tensors):
    """CLIP: how well texts and images go together."""

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> Any:
        """Ids and mask, [N, T], and images, [M, C, H, W]."""
        output = self.module(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        return output.logits_per_image, output.text_embeds, output.image_embeds


class Sound(Tensors):
    """A network over waves."""

    def forward(self, input_values: Tensor) -> Any:
        """Samples, [N, T]."""
        return self.flat(self.module(input_values))


class Speech(Tensors):
    """Whisper: a spectrogram and the text so far."""

    def forward(self, input_features: Tensor, decoder_input_ids: Tensor) -> Any:
        """Spectrograms, [N, bands, frames], and ids, [N, T]."""
        return self.module(input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False).logits


_Rows = tuple[str, str, str, type[Tensors], dict[str, Any], float, int]

_LLAMA = {
    "vocab_size": WORDS,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
_BERT = {"vocab_size": WORDS, "num_hidden_layers": 3}
_MODERN = {"vocab_size": WORDS, "num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MODERN |= {"cls_token_id": 1, "sep_token_id": 2}
_SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2}
_TEXT: tuple[_Rows, ...] = (
    ("bert", "BertConfig", "BertModel", Text, _BERT, 24, 0),
    ("bert_small_masked_words", "BertConfig", "BertForMaskedLM", Text, {"vocab_size": WORDS, **_SMALL}, 0.3, 0),
    ("gpt2", "GPT2Config", "GPT2LMHeadModel", Generator, {"vocab_size": WORDS, "n_layer": 3}, 24, 0),
    ("llama_grouped_queries", "LlamaConfig", "LlamaForCausalLM", Generator, _LLAMA, 35, 0),
    (
        "t5",
        "T5Config",
        "T5ForConditionalGeneration",
        TwoTexts,
        {"vocab_size": WORDS, "num_layers": 2, "num_decoder_layers": 2, "decoder_start_token_id": 0},
        20,
        0,
    ),
    (
        "t5_v1_1_gated_untied",
        "T5Config",
        "T5ForConditionalGeneration",
        TwoTexts,
        {
            "vocab_size": WORDS,
            "num_layers": 2,
            "d_ff": 1024,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "decoder_start_token_id": 0,
        },
        15,
        2,
    ),
    ("roberta", "RobertaConfig", "RobertaForSequenceClassification", Text, _BERT, 24, 2),
    ("distilbert", "DistilBertConfig", "DistilBertForMaskedLM", Text, {"vocab_size": WORDS, "n_layers": 2}, 17, 2),
    (
        "albert_shared_layers",
        "AlbertConfig",
        "AlbertModel",
        Text,
        {
            "vocab_size": WORDS,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "num_hidden_layers": 4,
        },
        8,
        2,
    ),
    ("electra", "ElectraConfig", "ElectraForTokenClassification", Text, _BERT, 4, 2),
    ("deberta_v2", "DebertaV2Config", "DebertaV2Model", Text, {**_BERT, "hidden_size": 384, **_SMALL}, 1, 2),
    ("mpnet", "MPNetConfig", "MPNetModel", Text, _BERT, 24, 3),
    ("modernbert", "ModernBertConfig", "ModernBertModel", Text, _MODERN, 22, 3),
    (
        "qwen2",
        "Qwen2Config",
        "Qwen2ForCausalLM",
        Generator,
        {**_LLAMA, "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2},
        30,
        2,
    ),
    (
        "qwen3",
        "Qwen3Config",
        "Qwen3ForCausalLM",
        Generator,
        {**_LLAMA, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
        20,
        2,
    ),
    ("mistral", "MistralConfig", "MistralForCausalLM", Generator, {**_LLAMA, "hidden_size": 512}, 20, 3),
    ("gemma", "GemmaConfig", "GemmaForCausalLM", Generator, {**_LLAMA, "hidden_size": 512, "head_dim": 64}, 20, 3),
    ("phi", "PhiConfig", "PhiForCausalLM", Generator, {**_LLAMA, "hidden_size": 512, "num_key_value_heads": 16}, 18, 3),
    (
        "gpt_neox_parallel_rotary",
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        Generator,
        {
            "vocab_size": WORDS,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "num_hidden_layers": 3,
        },
        12,
        2,
    ),
    (
        "bloom_alibi",
        "BloomConfig",
        "BloomForCausalLM",
        Generator,
        {"vocab_size": WORDS, "hidden_size": 512, "n_layer": 3, "n_head": 8},
        11,
        2,
    ),
    (
        "falcon_multi_query",
        "FalconConfig",
        "FalconForCausalLM",
        Generator,
        {"vocab_size": WORDS, "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8},
        10,
        2,
    ),
    ("opt", "OPTConfig", "OPTForCausalLM", Generator, {"vocab_size": WORDS, "num_hidden_layers": 3}, 24, 2),
    (
        "mixtral_experts",
        "MixtralConfig",
        "MixtralForCausalLM",
        Generator,
        {**_LLAMA, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_local_experts": 4},
        5,
        3,
    ),
    (
        "bart",
        "BartConfig",
        "BartForConditionalGeneration",
        TwoTexts,
        {"vocab_size": WORDS, "d_model": 512, "encoder_layers": 2, "decoder_layers": 2},
        30,
        2,
    ),
    (
        "mamba",
        "MambaConfig",
        "MambaForCausalLM",
        Unmasked,
        {"vocab_size": WORDS, "hidden_size": 256, "num_hidden_layers": 2},
        2,
        3,
    ),
)

_VIT_TINY = {
    "hidden_size": 192,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
}
_BEIT = {**_VIT_TINY, "use_relative_position_bias": True}
_VISION: tuple[tuple[str, str, str, dict[str, Any], int, float, int], ...] = (
    ("vit_base", "ViTConfig", "ViTForImageClassification", {}, 224, 86, 2),
    ("vit_tiny", "ViTConfig", "ViTModel", _VIT_TINY, 224, 2.2, 2),
    ("deit_distilled", "DeiTConfig", "DeiTForImageClassificationWithTeacher", _VIT_TINY, 224, 2.2, 2),
    ("swin", "SwinConfig", "SwinForImageClassification", {}, 224, 28, 2),
    ("convnext", "ConvNextConfig", "ConvNextForImageClassification", {}, 224, 28, 2),
    ("segformer", "SegformerConfig", "SegformerForSemanticSegmentation", {}, 128, 3.7, 2),
    (
        "beit",
        "BeitConfig",
        "BeitForImageClassification",
        {**_VIT_TINY, "use_relative_position_bias": True},
        224,
        2.4,
        3,
    ),
    ("dinov2", "Dinov2Config", "Dinov2Model", {**_VIT_TINY, "mlp_ratio": 4, "image_size": 224}, 224, 2.2, 3),
    ("mobilevit", "MobileViTConfig", "MobileViTForImageClassification", {}, 256, 5.6, 3),
    ("mobilenet_v1", "MobileNetV1Config", "MobileNetV1ForImageClassification", {}, 224, 3.2, 3),
    ("resnet50", "ResNetConfig", "ResNetForImageClassification", {}, 224, 25, 3),
    ("regnet", "RegNetConfig", "RegNetForImageClassification", {}, 224, 20, 3),
    ("cvt", "CvtConfig", "CvtForImageClassification", {}, 224, 20, 3),
    ("poolformer", "PoolFormerConfig", "PoolFormerForImageClassification", {}, 224, 12, 3),
    ("levit", "LevitConfig", "LevitForImageClassification", {}, 224, 8, 3),
    ("efficientnet", "EfficientNetConfig", "EfficientNetForImageClassification", {"image_size": 224}, 224, 30, 4),
    ("focalnet", "FocalNetConfig", "FocalNetForImageClassification", {}, 224, 28, 4),
    ("pvt", "PvtConfig", "PvtForImageClassification", {}, 224, 13, 4),
    ("yolos", "YolosConfig", "YolosForObjectDetection", {**_VIT_TINY, "image_size": [128, 128]}, 128, 3, 4),
    ("dpt", "DPTConfig", "DPTForDepthEstimation", {**_VIT_TINY, "num_hidden_layers": 12}, 384, 25, 4),
    ("mobilenet_v2", "MobileNetV2Config", "MobileNetV2ForImageClassification", {}, 224, 3.5, 4),
    ("swinv2", "Swinv2Config", "Swinv2ForImageClassification", {"window_size": 7}, 224, 28, 4),
    ("segformer_encoder", "SegformerConfig", "SegformerForImageClassification", {}, 224, 3.3, 4),
)


def entries() -> Iterator[Entry]:
    """The networks of transformers."""
    for name, config, model, around, options, millions, rank in _TEXT:
        example = tokens(WORDS, decoder=around is TwoTexts)
        if around is Unmasked:
            example = _only_ids
        yield _entry(name, _builder(config, model, around, options), example, millions, rank)
    for name, config, model, options, size, millions, rank in _VISION:
        build = _builder(config, model, Image, options)
        yield _entry(name, build, image(size, name="pixel_values"), millions, rank)
    yield from _others()


def _others() -> Iterator[Entry]:
    towers = {
        "text_config": {"vocab_size": WORDS, "num_hidden_layers": 2},
        "vision_config": {"num_hidden_layers": 2, "patch_size": 32},
    }
    yield _entry("clip", _builder("CLIPConfig", "CLIPModel", ImageAndText, towers), _text_and_image, 25, 2)
    whisper = {
        "vocab_size": WORDS,
        "d_model": 384,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "decoder_ffn_dim": 1536,
        "max_source_positions": 150,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    build = _builder("WhisperConfig", "WhisperForConditionalGeneration", Speech, whisper)
    yield _entry("whisper", build, _speech, 10, 2)
    detr = {"use_timm_backbone": False, "backbone_config": {"model_type": "resnet"}, "use_pretrained_backbone": False}
    detr |= {"encoder_layers": 2, "decoder_layers": 2, "backbone": None}
    yield _entry("detr", _builder("DetrConfig", "DetrForObjectDetection", Detector, detr), _pixels_and_mask, 30, 2)
    waves = {"num_hidden_layers": 2, "apply_spec_augment": False}
    example = numbers(2, 4000, name="input_values", axes=TOKENS)
    yield _entry("wav2vec2", _builder("Wav2Vec2Config", "Wav2Vec2ForCTC", Sound, waves), example, 20, 2)
    yield _entry("hubert", _builder("HubertConfig", "HubertModel", Sound, waves), example, 20, 4)


def _entry(
    name: str, build: Callable[[str], nn.Module], example: Callable[[], Example], millions: float, rank: int
) -> Entry:
    return Entry(name=f"hf_{name}", family="transformers", build=build, example=example, millions=millions, rank=rank)


def _builder(config: str, model: str, around: type[Tensors], options: dict[str, Any]) -> Callable[[str], nn.Module]:
    def build(attention: str) -> nn.Module:
        settings = getattr(hf, config)(**options)
        settings._attn_implementation = attention
        return around(getattr(hf, model)(settings))

    return build


def _only_ids() -> Example:
    return Example(inputs={"input_ids": torch.randint(4, WORDS, (2, 16))}, axes={"input_ids": TOKENS})


def _text_and_image() -> Example:
    text = tokens(WORDS)()
    inputs = {**text.inputs, "pixel_values": torch.randn(3, 3, 224, 224)}
    return Example(inputs=inputs, axes={**text.axes, "pixel_values": {0: "images"}})


def _pixels_and_mask() -> Example:
    inputs = {"pixel_values": torch.randn(2, 3, 128, 128), "pixel_mask": torch.ones(2, 128, 128, dtype=torch.int64)}
    return Example(inputs=inputs, axes=dict.fromkeys(inputs, BATCH))


def _speech() -> Example:
    inputs = {"input_features": torch.randn(2, 80, 300), "decoder_input_ids": torch.randint(4, WORDS, (2, 7))}
    return Example(inputs=inputs, axes={"input_features": BATCH, "decoder_input_ids": TOKENS})
