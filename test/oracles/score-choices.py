#!/usr/bin/env python3
"""Writes fixtures/choices/scores.json: what transformers makes of fixtures/choices/questions.jsonl.

usage: score-choices.py fixtures qwen3-tied qwen3-untied   (models whose vocabulary has the bytes)
Made with torch 2.13.0 and transformers 5.18.0.
A score is the sum of the log-probabilities of a choice's tokens given its context, in float64. Tokens are bytes. As in
lm-evaluation-harness, spaces at the end of a context belong to the choice; before an empty context stands byte 255.
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM

root, names = sys.argv[1], sys.argv[2:]
questions = [json.loads(line) for line in open(f"{root}/choices/questions.jsonl", encoding="utf-8")]


def score(model, context, choice):
    kept = context.rstrip()
    before = list(kept.encode()) or [255]
    ids = before + list((context[len(kept):] + choice).encode())
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    rows = torch.log_softmax(logits, dim=-1)
    return sum(rows[i - 1, ids[i]].item() for i in range(len(before), len(ids)))


def of(name):
    model = AutoModelForCausalLM.from_pretrained(f"{root}/{name}", dtype=torch.float64, attn_implementation="eager").eval()
    scores = [[score(model, q["context"], c) for c in q["choices"]] for q in questions]
    best = [s.index(max(s)) for s in scores]
    byte = [[x / len(c.encode()) for x, c in zip(s, q["choices"])] for s, q in zip(scores, questions)]
    best_norm = [s.index(max(s)) for s in byte]
    right = lambda picks: sum(p == q["answer"] for p, q in zip(picks, questions)) / len(questions)
    return {"scores": scores, "best": best, "best_norm": best_norm, "accuracy": right(best), "accuracy_norm": right(best_norm)}


with open(f"{root}/choices/scores.json", "w") as f:
    json.dump({name: of(name) for name in names}, f, indent=1)
    f.write("\n")
