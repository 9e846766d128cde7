#!/usr/bin/env python3
"""Writes a small teacher, and what torch's autograd makes of distillation from it on a fixture's first batch, in float64.

usage: distillation.py STUDENT_FIXTURE_DIR OUT_DIR
OUT_DIR gets the teacher as a Hugging Face folder, and expected.json: by temperature the K most probable tokens of each
position, and for each loss its sum, its divisor, and of every parameter's gradient the norm and four projections on
cos((k + 1) * i + k). Half of the teacher's output rows are there twice, so that many tokens are equally probable.
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

student_folder, out = sys.argv[1:3]
K = 8
torch.manual_seed(7)
config = Qwen3Config(vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=8,
    num_key_value_heads=4, head_dim=8, max_position_embeddings=512, rope_theta=1e6, tie_word_embeddings=False,
    initializer_range=0.15, rms_norm_eps=1e-6)
teacher = Qwen3ForCausalLM(config)
with torch.no_grad(): teacher.lm_head.weight[160:240] = teacher.lm_head.weight[:80]
teacher.save_pretrained(out)

trajectory = json.load(open(f"{student_folder}/trajectory.json"))
B, S = trajectory["batch"], trajectory["seq"]
lines = [json.loads(line) for line in open(f"{student_folder}/tokens.jsonl")][:B]
tokens = torch.tensor([line["input_ids"] for line in lines])[:, :-1]
mask = torch.tensor([line.get("loss_mask", [1] * (S + 1)) for line in lines])[:, 1:].double()
load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").double()
teacher, student = load(out), load(student_folder)
with torch.no_grad(): wanted = teacher(input_ids=tokens).logits

def top(temperature):
    logp = torch.log_softmax(wanted / temperature, -1)
    # The same logits come out of the same rows only up to rounding.
    order = torch.sort(wanted.float(), dim=-1, descending=True, stable=True).indices[..., :K]
    return order, logp.gather(-1, order)

def kl(p, q): return ((p.exp() * (p - q)).sum(-1) * mask).sum()
def top_k(z, T):
    ids, p = top(T)
    return T * T * kl(torch.log_softmax(p, -1), torch.log_softmax(z.gather(-1, ids) / T, -1))
def vocabulary(z, T):
    ids, p = top(T)
    return T * T * kl(p, torch.log_softmax(z / T, -1).gather(-1, ids))
def full(z, T): return T * T * kl(torch.log_softmax(wanted / T, -1), torch.log_softmax(z / T, -1))

result = {"k": K, "top": {}, "losses": {}}
for T in (1, 2):
    ids, logp = top(T)
    result["top"][T] = {"ids": ids.flatten().tolist(), "logprobs": [round(x, 9) for x in logp.flatten().tolist()]}
for name, loss, T in (("top_k", top_k, 1), ("top_k_2", top_k, 2), ("vocabulary", vocabulary, 1), ("vocabulary_2", vocabulary, 2), ("full", full, 1), ("full_2", full, 2)):
    student.zero_grad(set_to_none=True)
    found = loss(student(input_ids=tokens).logits, T); found.backward()
    grads = {}
    for parameter, p in student.named_parameters():
        g, i = p.grad.flatten(), torch.arange(p.numel(), dtype=torch.float64)
        grads[parameter] = [g.norm().item(), *(torch.dot(g, torch.cos((k + 1) * i + k)).item() for k in range(4))]
    result["losses"][name] = {"loss": found.item(), "divisor": mask.sum().item(), "grads": grads}
json.dump(result, open(f"{out}/expected.json", "w"))
