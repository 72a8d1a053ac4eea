"""Write small Hugging Face models with random weights into a folder: run by the environment `torch`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers as t

folder = Path(sys.argv[1])
torch.manual_seed(0)
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
t.BertForSequenceClassification(t.BertConfig(vocab_size=50, **small)).save_pretrained(folder / "bert")
t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)).save_pretrained(folder / "gpt2")
t.LlamaForCausalLM(t.LlamaConfig(vocab_size=50, num_key_value_heads=2, **small)).save_pretrained(folder / "llama")
t.T5ForConditionalGeneration(
    t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
).save_pretrained(folder / "t5")
t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=8, **small)).save_pretrained(folder / "vit")
