#!/usr/bin/env python3
"""Writes an oracle fixture: a small random model, and what transformers and torch compute from it on the CPU in float32.

usage: make-fixture.py OUT_DIR SEED family=qwen3|qwen2|llama key=value...   (see `make-family-fixtures.sh`)
Writes config.json, the weights (HF layout), tokens.jsonl, expected.safetensors and trajectory.json, as
fixtures/README.md describes them. The trajectory is run again in float64, with micro-batch 1 and with sdpa: a
fixture on which torch itself strays by more than a tenth of the tests' bounds is refused, since it would test rounding.
"""
import copy, json, math, os, sys
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

FAMILIES = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
out, seed = sys.argv[1], int(sys.argv[2])
given = dict(a.split("=", 1) for a in sys.argv[3:])

def get(key, default):
    value = given.get(key)
    if value is None: return default
    return value.lower() == "true" if isinstance(default, bool) else type(default)(value)

torch.manual_seed(seed); torch.set_num_threads(2); torch.use_deterministic_algorithms(True)
Config, Model = FAMILIES[get("family", "qwen3")]
theta, pad = get("theta", 1e6), get("pad", -1)
rope = json.loads(get("rope", '{"rope_type":"default"}'))
cfg = Config(
    vocab_size=get("vocab", 97), hidden_size=get("hidden", 24), intermediate_size=get("ffn", 40), num_hidden_layers=get("layers", 2),
    num_attention_heads=get("heads", 4), num_key_value_heads=get("kv", 2), max_position_embeddings=512, rms_norm_eps=get("eps", 1e-6),
    rope_parameters={**rope, "rope_theta": theta}, tie_word_embeddings=get("tied", True), initializer_range=get("range", 0.05),
    use_cache=False, attn_implementation="eager", dtype="float32", bos_token_id=None, eos_token_id=None,
    pad_token_id=None if pad < 0 else pad, **({"head_dim": get("head_dim", 8)} if "head_dim" in given else {}))
model = Model(cfg).float()
bf16 = get("bf16", False)
with torch.no_grad():
    for name, p in model.named_parameters():
        # Norms away from 1, biases and the padding row away from 0, so that a wrong one shows.
        if p.ndim == 1: p.add_(0.1 * torch.randn_like(p))
        if pad >= 0 and name == "model.embed_tokens.weight": p[pad] = 0.05 * torch.randn_like(p[pad])
        if bf16: p.copy_(p.bfloat16().float())
start = {n: p.detach().clone().contiguous() for n, p in model.named_parameters()}
S, B, steps = get("seq", 16), get("batch", 4), 12
gen = torch.Generator().manual_seed(seed + 1)
base = torch.randint(0, cfg.vocab_size, (2, B, S + 1), generator=gen)
if pad >= 0: base[:, :, ::5] = pad
tok = torch.stack([base[i % 2] for i in range(steps)])       # two batches in turn, so that the loss can fall

# Where documents begin in each sample: of one token, of a whole sample, one that begins with the last token, any.
packed = get("packed", False)
def begin(k):
    if not packed or k % 4 == 1: return [0]
    if k % 4 == 2: return [0, 1, 2, S // 2, S]
    return sorted({0, *torch.randint(1, S + 1, (3,), generator=gen).tolist()})
starts = [[begin(4 * i + k) for k in range(B)] for i in range(2)]
starts = [starts[i % 2] for i in range(steps)]
counted = [sum(S - len(s) + 1 for s in starts[i]) for i in range(steps)]

def loss_of(m, t, begins):
    if packed:  # each document by itself; what predicts the next one's first token does not count
        total, rows = 0.0, []
        for row, at in zip(t, begins):
            row_logits = []
            for a, b in zip(at, at[1:] + [S + 1]):
                inputs = row[a:min(b, S)]
                if len(inputs) == 0: continue
                logits = m(input_ids=inputs[None]).logits[0]
                row_logits.append(logits)
                if b - a > 1: total = total + torch.nn.functional.cross_entropy(logits[:b - a - 1], row[a + 1:b], reduction="sum")
            rows.append(torch.cat(row_logits))
        return total, torch.stack(rows)
    logits = m(input_ids=t[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, cfg.vocab_size), t[:, 1:].reshape(-1), reduction="sum"), logits

lr, warm, wd, clip = get("lr", 2e-3), 3, 0.1, 1.0
lr_min = lr / 10
def lr_at(i):   # i counts finished updates: linear warm-up, then cosine to lr_min over the rest
    if i < warm: return lr * (i + 1) / warm
    return lr_min + 0.5 * (lr - lr_min) * (1 + math.cos(math.pi * (i + 1 - warm) / (steps - warm)))
def trajectory(m, micro):
    opt = torch.optim.AdamW([
        {"params": [p for p in m.parameters() if p.ndim > 1], "weight_decay": wd},
        {"params": [p for p in m.parameters() if p.ndim == 1], "weight_decay": 0.0}],
        lr=lr, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    r = []
    for i in range(steps):
        for group in opt.param_groups: group["lr"] = lr_at(i)
        n = counted[i]; total = 0.0
        for j in range(0, B, micro):
            l, _ = loss_of(m, tok[i][j:j + micro], starts[i][j:j + micro]); (l / n).backward(); total += l.item()
        norm = torch.nn.utils.clip_grad_norm_(m.parameters(), clip)
        opt.step(); opt.zero_grad(set_to_none=True)
        r.append({"step": i + 1, "loss": total / n, "grad_norm": norm.item(), "lr": lr_at(i)})
    return r
def fresh(dtype=torch.float32, attn="eager"):
    c = copy.deepcopy(cfg); c._attn_implementation = attn
    m = Model(c).to(dtype)
    with torch.no_grad():
        for n, p in m.named_parameters(): p.copy_(start[n])
    return m

loss, logits = loss_of(model, tok[0], starts[0]); loss = loss / counted[0]; loss.backward()
expected = {"logits": logits.detach().float().contiguous(), "loss": loss.detach().reshape(1)}
expected |= {f"grad.{n}": p.grad.detach().clone().contiguous() for n, p in model.named_parameters()}
main = trajectory(fresh(), B)
far = lambda o: tuple(max(abs(a[k] - b[k]) / b[k] for a, b in zip(o, main)) for k in ("loss", "grad_norm"))
stray = {"float64": far(trajectory(fresh(torch.float64), B)), "micro-batch 1": far(trajectory(fresh(), 1)), "sdpa": far(trajectory(fresh(attn="sdpa"), B))}
for k, (a, b) in stray.items():
    if a > 2e-6 or b > 2e-5: sys.exit(f"refused {out}: torch strays with {k}: loss {a:.1e}, norm {b:.1e}")

os.makedirs(out, exist_ok=True)
stored = {n: p.bfloat16() if bf16 else p for n, p in start.items()}
if get("shards", 1) == 1: save_file(stored, f"{out}/model.safetensors", metadata={"format": "pt"})
else:
    count, names = get("shards", 1), list(stored)
    shard_of = {n: f"model-{i % count + 1:05d}-of-{count:05d}.safetensors" for i, n in enumerate(names)}
    for f in sorted(set(shard_of.values())): save_file({n: stored[n] for n in names if shard_of[n] == f}, f"{out}/{f}", metadata={"format": "pt"})
    size = sum(t.numel() * t.element_size() for t in stored.values())
    json.dump({"metadata": {"total_size": size}, "weight_map": shard_of}, open(f"{out}/model.safetensors.index.json", "w"), indent=1, sort_keys=True)
save_file(expected, f"{out}/expected.safetensors")
c = cfg.to_dict(); c["architectures"] = [Model.__name__]
if get("old", False):  # as transformers 4 wrote it, and as most published folders are
    c.pop("rope_parameters"); c["rope_theta"] = theta; c["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    c["torch_dtype"] = c.pop("dtype")
c["torch_dtype" if get("old", False) else "dtype"] = "bfloat16" if bf16 else "float32"
json.dump({k: v for k, v in c.items() if not k.startswith("_")}, open(f"{out}/config.json", "w"), indent=1, sort_keys=True)
with open(f"{out}/tokens.jsonl", "w") as f:                       # sample k of update n (from 1) is line (n-1)*B + k (k from 0)
    for row, at in zip(tok.reshape(-1, S + 1).tolist(), sum(starts, [])):
        f.write(json.dumps({"input_ids": row, **({"document_starts": at} if packed else {})}) + "\n")
json.dump({"optimizer": {"name": "adamw", "lr": lr, "min_lr": lr_min, "warmup_steps": warm, "decay": "cosine", "decay_steps": steps,
    "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": wd, "weight_decay_on": "parameters with 2 or more dimensions", "clip_grad_norm": clip},
    "batch": B, "seq": S, **({"packed": True} if packed else {}), "torch_strays_by": {k: {"loss": a, "grad_norm": b} for k, (a, b) in stray.items()}, "steps": main}, open(f"{out}/trajectory.json", "w"), indent=1)
print(out, f"{main[0]['loss']:.6f} -> {main[-1]['loss']:.6f}", f"norm {main[0]['grad_norm']:.3f}", {k: f"{a:.0e}/{b:.0e}" for k, (a, b) in stray.items()})
