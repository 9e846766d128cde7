#!/usr/bin/env python3
"""Writes fixtures/chats/expected.json: what transformers and torch make of fixtures/chats/chats.jsonl.

usage: finetune-chats.py fixtures
Made with torch 2.13.0 and transformers 5.18.0.
Conversations are written by tokenizer-chatml's chat template; what counts is what stands between the assistant's
`<|im_start|>assistant\\n` and its `<|im_end|>`, that one included. Then qwen3-tied is trained on them in file order, each
on its own without padding, in float32, by AdamW: the mean loss of the counted tokens of a batch. It is run again in
float64: where float32 strays by more than a tenth of the tests' bound, nothing is written.
"""
import json, re, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

root = sys.argv[1]
torch.set_num_threads(2); torch.use_deterministic_algorithms(True)
tokenizer = AutoTokenizer.from_pretrained(f"{root}/tokenizer-chatml")
lines = [json.loads(line) for line in open(f"{root}/chats/chats.jsonl", encoding="utf-8")]
LR, BATCH, STEPS, CLIP, TRUNCATED = 1e-3, 4, 6, 1.0, 64


def tokens(line):
    messages = line.get("messages") or [{"role": "user", "content": line["prompt"]}, {"role": "assistant", "content": line["completion"]}]
    text = tokenizer.apply_chat_template(messages, tools=line.get("tools"), tokenize=False)
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [m.span(1) for m in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.S)]
    mask = [int(any(a < end and start < b for a, b in spans)) for start, end in made["offset_mapping"]]
    return made["input_ids"], mask


def train(samples, dtype, size):
    model = AutoModelForCausalLM.from_pretrained(f"{root}/qwen3-tied", dtype=dtype, attn_implementation="eager").train()
    opt = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, foreach=False)
    losses = []
    for step in range(STEPS):
        batch = [samples[(step * size + k) % len(samples)] for k in range(size)]
        counted = sum(sum(mask[1:]) for _, mask in batch)
        total = 0.0
        for ids, mask in batch:
            logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0]
            each = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            loss = (each * torch.tensor(mask[1:], dtype=dtype)).sum() / counted
            loss.backward(); total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        opt.step(); opt.zero_grad(set_to_none=True)
        losses.append(total)
    return losses


chats = [tokens(line) for line in lines]
short = [(ids[:TRUNCATED + 1], mask[:TRUNCATED + 1]) for ids, mask in chats]
result = {"lr": LR, "batch": BATCH, "truncated_seq_length": TRUNCATED, "conversations": [{"ids": i, "mask": m} for i, m in chats]}
# `all`: every conversation in every update.
for name, samples, size in [("whole", chats, BATCH), ("truncated", short, BATCH), ("all", chats, len(chats))]:
    losses, exact = train(samples, torch.float32, size), train(samples, torch.float64, size)
    stray = max(abs(a / b - 1) for a, b in zip(losses, exact))
    if stray > 2e-6: sys.exit(f"refused: torch strays by {stray:.1e}")
    result[name] = {"losses": losses, "torch_strays_by": stray}
    print(name, losses, f"{stray:.1e}")
with open(f"{root}/chats/expected.json", "w") as f:
    f.write(json.dumps(result).replace(', "whole"', ',\n"whole"').replace(', "truncated":', ',\n"truncated":').replace(', "all":', ',\n"all":').replace(', {"ids"', ',\n{"ids"') + "\n")
