"""Greedy continuations of the fixtures by transformers (float32, its own cache): fixtures/generation/expected.json.

usage: generate.py
Made with torch 2.13.0 and transformers 5.18.0.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2] / "fixtures"
FIXTURES = ["qwen3-tied", "qwen3-untied", "qwen3-masked", "qwen2-tied", "llama-scaled"]
PROMPTS = [[1], [5, 17, 42, 9, 33], list(range(2, 40))]
TOKENS = 256


def continuation(model, prompt):
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, len(prompt) :].tolist()
    logprobs = [torch.log_softmax(x[0].double(), -1)[t].item() for x, t in zip(out.logits, tokens)]
    margins = [(lambda top: (top[0] - top[1]).item())(x[0].topk(2).values) for x in out.logits]
    return tokens, logprobs, min(margins)


torch.set_num_threads(1)
expected = {"prompts": PROMPTS, "fixtures": {}}
for name in FIXTURES:
    model = AutoModelForCausalLM.from_pretrained(ROOT / name, dtype=torch.float32)
    model.eval()
    rows = [continuation(model, prompt) for prompt in PROMPTS]
    print(name, "least margin between the two highest logits", min(row[2] for row in rows))
    expected["fixtures"][name] = [
        {"tokens": tokens, "logprobs": [round(x, 6) for x in logprobs]} for tokens, logprobs, _ in rows
    ]
(ROOT / "generation").mkdir(exist_ok=True)
(ROOT / "generation" / "expected.json").write_text(json.dumps(expected) + "\n")
