"""Trains a Qwen3 with transformers and torch in bf16_mixed, and leaves behind what `mbridge bench check` compares with.

    python3 bench/torch_bf16_oracle.py OUT [--text FILE] [--device cuda] [--updates 50] ...
    mbridge bench check --parts torch --oracle OUT

OUT receives hf/ (config.json and random float32 weights), tokens.jsonl (sample k of update n is line (n-1) * batch + k) and
oracle.json (our configuration of the same run; loss, gradient norm and learning rate of each update).

float32 main weights, a bf16 copy of them for forward and backward, gradients of all micro-batches added up in float32, AdamW
on the main weights, weight decay on matrices. The loss is the sum over tokens divided by their number.
"""

import argparse
import copy
import json
import math
import pathlib
import time

import torch
import transformers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--text", type=pathlib.Path, help="tokens are this file's bytes; default: a random walk")
parser.add_argument("--device", default="cuda")
parser.add_argument("--precision", choices=["bf16_mixed", "fp32"], default="bf16_mixed")
parser.add_argument("--updates", type=int, default=50)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--micro-batch", type=int, default=2)
parser.add_argument("--seq", type=int, default=512)
parser.add_argument("--lr", type=float, default=3e-4)
parser.add_argument("--min-lr", type=float, default=3e-5)
parser.add_argument("--warmup", type=int, default=5)
parser.add_argument("--seed", type=int, default=1234)
# Qwen3-0.6B's sizes
parser.add_argument("--vocab", type=int, default=151936)
parser.add_argument("--hidden", type=int, default=1024)
parser.add_argument("--ffn", type=int, default=3072)
parser.add_argument("--layers", type=int, default=28)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--kv-heads", type=int, default=8)
parser.add_argument("--head-dim", type=int, default=128)
args = parser.parse_args()

BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0

torch.manual_seed(args.seed)
torch.backends.cuda.matmul.allow_tf32 = False
args.out.mkdir(parents=True, exist_ok=True)

# ---- Weights and tokens, for both sides ----
config = transformers.Qwen3Config(
    vocab_size=args.vocab,
    hidden_size=args.hidden,
    intermediate_size=args.ffn,
    num_hidden_layers=args.layers,
    num_attention_heads=args.heads,
    num_key_value_heads=args.kv_heads,
    head_dim=args.head_dim,
    tie_word_embeddings=True,
    max_position_embeddings=max(4096, args.seq),
    rms_norm_eps=1e-6,
    rope_theta=1_000_000.0,
    use_cache=False,
    architectures=["Qwen3ForCausalLM"],
)
main = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
main.save_pretrained(args.out / "hf", safe_serialization=True)
main = main.to(args.device)

samples = args.updates * args.batch
if args.text is not None:
    data = torch.tensor(list(args.text.read_bytes()), dtype=torch.long)
    data = data[data < args.vocab]
else:
    # Each token is near the one before it, so that there is something to learn.
    steps = torch.randint(-3, 4, (samples * args.seq + 1,))
    data = (torch.cumsum(steps, 0) % min(args.vocab, 256)).long()
starts = [(i * args.seq) % (len(data) - args.seq - 1) for i in range(samples)]
tokens = torch.stack([data[start : start + args.seq + 1] for start in starts])
with open(args.out / "tokens.jsonl", "w") as file:
    for row in tokens:
        file.write(json.dumps({"input_ids": row.tolist()}) + "\n")

# ---- Training ----
if args.precision == "fp32":
    model = main
else:
    model = copy.deepcopy(main).to(torch.bfloat16)
model.train()
pairs = list(zip(main.parameters(), model.parameters(), strict=True))
gradients = [torch.zeros_like(p, dtype=torch.float32) for p, _ in pairs]


def add_gradients() -> None:
    for gradient, (_, copied) in zip(gradients, pairs, strict=True):
        gradient.add_(copied.grad.float())
        copied.grad = None


matrices = [p for p, _ in pairs if p.dim() >= 2]
vectors = [p for p, _ in pairs if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
    lr=args.lr,
    betas=BETAS,
    eps=EPS,
)


def learning_rate(update: int) -> float:
    if update <= args.warmup:
        return args.lr * update / args.warmup
    part = min(1.0, (update - args.warmup) / (args.updates - args.warmup))
    return args.min_lr + (args.lr - args.min_lr) * 0.5 * (1 + math.cos(math.pi * part))


results = []
started = time.perf_counter()
for update in range(1, args.updates + 1):
    batch = tokens[(update - 1) * args.batch : update * args.batch].to(args.device)
    count = args.batch * args.seq
    loss_sum = torch.zeros((), dtype=torch.float64, device=args.device)
    for micro in batch.split(args.micro_batch):
        logits = model(input_ids=micro[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), micro[:, 1:].flatten(), reduction="sum")
        loss.backward()
        loss_sum += loss.detach().double()
        add_gradients()
    for gradient in gradients:
        gradient.div_(count)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.double()) for g in gradients])).item()
    scale = min(1.0, CLIP / (norm + 1e-6))
    for (parameter, _), gradient in zip(pairs, gradients, strict=True):
        parameter.grad = gradient.mul(scale)
    lr = learning_rate(update)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for (parameter, copied), gradient in zip(pairs, gradients, strict=True):
            gradient.zero_()
            if copied is not parameter:
                copied.copy_(parameter)
    results.append({"step": update, "loss": loss_sum.item() / count, "grad_norm": norm, "lr": lr})
    if update == 1 or update % 10 == 0:
        print(f"update {update}: loss {results[-1]['loss']:.4f}, grad_norm {norm:.3f}", flush=True)

out = args.out.resolve()
oracle = {
    "versions": {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "seconds": round(time.perf_counter() - started, 1),
    },
    "config": {
        "model": {"hf_path": str(out / "hf"), "seq_length": args.seq},
        "train": {
            "train_iters": args.updates,
            "global_batch_size": args.batch,
            "micro_batch_size": args.micro_batch,
        },
        "optimizer": {
            "lr": args.lr,
            "min_lr": args.min_lr,
            "adam_beta1": BETAS[0],
            "adam_beta2": BETAS[1],
            "adam_eps": EPS,
            "weight_decay": WEIGHT_DECAY,
            "clip_grad": CLIP,
        },
        "scheduler": {
            "lr_decay_style": "cosine",
            "lr_warmup_iters": args.warmup,
            "lr_decay_iters": args.updates,
        },
        "mixed_precision": args.precision,
        "checkpoint": {"pretrained_checkpoint": str(out / "hf")},
        "dataset": {"type": "jsonl", "path": str(out / "tokens.jsonl"), "shuffle": False},
    },
    "steps": results,
}
(args.out / "oracle.json").write_text(json.dumps(oracle, indent=1))
print(f"{args.out / 'oracle.json'}: {args.updates} updates in {oracle['versions']['seconds']} s")
