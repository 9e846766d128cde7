#!/usr/bin/env python3
"""Writes what torch's autograd makes of losses of tokens on a fixture's first batch, in float64.

usage: token-losses.py FIXTURE_DIR SCORE_ROW.json OUT.json
SCORE_ROW.json holds the row of weights of the value head. OUT.json: the fields of the batch (float32), scores, and for
each loss its sum, its divisor, and of every parameter's gradient the norm and four projections on cos((k + 1) * i + k).
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM

folder, score_row, out = sys.argv[1:4]
trajectory = json.load(open(f"{folder}/trajectory.json"))
B, S = trajectory["batch"], trajectory["seq"]
lines = [json.loads(line) for line in open(f"{folder}/tokens.jsonl")][:B]
ids = torch.tensor([line["input_ids"] for line in lines])
mask = torch.tensor([line.get("loss_mask", [1] * (S + 1)) for line in lines])[:, 1:].double()
tokens, targets = ids[:, :-1], ids[:, 1:]
torch.manual_seed(5)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double()
row = torch.tensor(json.load(open(score_row)), dtype=torch.float64)
score = torch.nn.Parameter(row.reshape(1, -1))

def forward():
    hidden = model.model(input_ids=tokens).last_hidden_state
    logp = torch.log_softmax(model.lm_head(hidden), -1)
    return logp.gather(-1, targets[..., None])[..., 0], -(logp.exp() * logp).sum(-1), (hidden @ score.T)[..., 0]

with torch.no_grad(): logprob, entropy, value = forward()
f32 = lambda x: x.float().double()
fields = {
    "advantage": f32(torch.randn(B, S)), "old_logprob": f32(logprob + 0.3 * torch.randn(B, S)),
    "ref_logprob": f32(logprob + 0.3 * torch.randn(B, S)), "returns": f32(torch.randn(B, S)), "old_value": f32(value + 0.02 * torch.randn(B, S))}
A, old, ref, ret, was = fields.values()

def clipped(ratio, a): return -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
def ppo(l, h, v): return (clipped((l - old).exp(), A) * mask).sum()
def k3(l, h, v): return ppo(l, h, v) + 0.5 * ((((ref - l).exp() - (ref - l) - 1)) * mask).sum()
def bonus(l, h, v): return ppo(l, h, v) - 0.3 * (h * mask).sum()
def gspo(l, h, v):
    ratio = (((l - old) * mask).sum(1) / mask.sum(1).clamp(min=1)).exp()
    first = mask.argmax(1)
    return (clipped(ratio, A.gather(1, first[:, None])[:, 0]) * (mask.sum(1) > 0)).sum()
def dpo(l, h, v):
    r = ((l - ref) * mask).sum(1)
    return -torch.nn.functional.logsigmoid(0.1 * (r[0::2] - r[1::2])).sum()
def values(l, h, v):
    held = torch.maximum(torch.minimum(v, was + 0.01), was - 0.01)
    return (torch.maximum((v - ret) ** 2, (held - ret) ** 2) * mask).sum() / 2
def cross_entropy(l, h, v): return -(l * mask).sum()

losses = {"plain": cross_entropy, "ppo": ppo, "k3": k3, "entropy": bonus, "gspo": gspo, "dpo": dpo, "value": values}
result = {"fields": {k: v.flatten().tolist() for k, v in fields.items()}, "score": row.flatten().tolist(),
    "logprob": logprob.flatten().tolist(), "entropy": entropy.flatten().tolist(), "value": value.flatten().tolist(), "losses": {}}
for name, loss in losses.items():
    model.zero_grad(set_to_none=True); score.grad = None
    found = loss(*forward()); found.backward()
    grads = {}
    for parameter, p in [*model.named_parameters(), ("score.weight", score)]:
        if p.grad is None: continue
        g, i = p.grad.flatten(), torch.arange(p.numel(), dtype=torch.float64)
        grads[parameter] = [g.norm().item(), *(torch.dot(g, torch.cos((k + 1) * i + k)).item() for k in range(4))]
    result["losses"][name] = {"loss": found.item(), "divisor": {"gspo": (mask.sum(1) > 0).sum().item(), "dpo": B // 2}.get(name, mask.sum().item()), "grads": grads}
json.dump(result, open(out, "w"))
