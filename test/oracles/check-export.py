#!/usr/bin/env python3
"""Loads a folder that `mbridge checkpoint export` wrote into transformers, and compares logits with a fixture's.

usage: check-export.py EXPORTED FIXTURE     exit code 1 where they differ, or where transformers had to make up a tensor
For a fixture that was imported and exported again, they are the same to the bit (float32) of those of the fixture's folder.
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM

def logits_of(folder, tokens):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    amiss = {k: v for k, v in info.items() if v}
    if amiss: sys.exit(f"{folder}: {amiss}")
    with torch.no_grad(): return model(input_ids=tokens).logits

exported, fixture = sys.argv[1:3]
lines = [json.loads(line)["input_ids"] for line in open(f"{fixture}/tokens.jsonl")]
tokens = torch.tensor(lines[:2])[:, :-1]
a, b = logits_of(exported, tokens), logits_of(fixture, tokens)
print(f"{exported}: {type(AutoModelForCausalLM.from_pretrained(exported)).__name__}, largest difference of logits {(a - b).abs().max().item():.3e}")
sys.exit(0 if torch.equal(a, b) else 1)
