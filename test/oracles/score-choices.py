#!/usr/bin/env python3
"""Writes fixtures/choices/scores.json: what transformers makes of fixtures/choices/questions.jsonl.

usage: score-choices.py fixtures qwen3-tied qwen3-untied qwen3-tied+tokenizer-chatml qwen3-tied+tokenizer-bos
Made with torch 2.13.0 and transformers 5.18.0.
A score is the sum of the log-probabilities of a choice's tokens given its context, in float64. Tokens are bytes, or
those of the tokenizer that is named, without special tokens around a text. As in lm-evaluation-harness, spaces at the end
of a context belong to the choice; before an empty context stands byte 255, or the tokenizer's eos_token.
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

root, names = sys.argv[1], sys.argv[2:]
questions = [json.loads(line) for line in open(f"{root}/choices/questions.jsonl", encoding="utf-8")]


def score(model, encode, between, context, choice):
    kept = context.rstrip()
    before = encode(kept) if kept else [between]
    end = context[len(kept):] + choice
    ids = encode(kept + end) if kept else before + encode(end)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    rows = torch.log_softmax(logits, dim=-1)
    return sum(rows[i - 1, ids[i]].item() for i in range(len(before), len(ids)))


def of(name):
    name, _, tokens = name.partition("+")
    encode, between = lambda text: list(text.encode()), 255
    if tokens:
        tokenizer = AutoTokenizer.from_pretrained(f"{root}/{tokens}")
        encode, between = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(f"{root}/{name}", dtype=torch.float64, attn_implementation="eager").eval()
    scores = [[score(model, encode, between, q["context"], c) for c in q["choices"]] for q in questions]
    best = [s.index(max(s)) for s in scores]
    byte = [[x / len(c.encode()) for x, c in zip(s, q["choices"])] for s, q in zip(scores, questions)]
    best_norm = [s.index(max(s)) for s in byte]
    right = lambda picks: sum(p == q["answer"] for p, q in zip(picks, questions)) / len(questions)
    return {"scores": scores, "best": best, "best_norm": best_norm, "accuracy": right(best), "accuracy_norm": right(best_norm)}


with open(f"{root}/choices/scores.json", "w") as f:
    json.dump({name: of(name) for name in names}, f, indent=1)
    f.write("\n")
