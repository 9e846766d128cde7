"""qwen3-tiny trained by transformers and torch on the CPU: one line of JSON an update, then one with the versions.

Same sizes, batch and optimizer as the recipe qwen3-tiny (recipes/qwen3.ts); float32, random tokens.
"""

import argparse
import json
import time

import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("--micro-batch", type=int, default=8)
parser.add_argument("--global-batch", type=int, default=8)
parser.add_argument("--seq-length", type=int, default=256)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=23)
parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(1234)
config = transformers.Qwen3Config(
    vocab_size=256,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    tie_word_embeddings=True,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    use_cache=False,
)
model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation=args.attention, dtype=torch.float32
)
model.train()
matrices = [p for p in model.parameters() if p.dim() >= 2]
vectors = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
    lr=3e-3,
    betas=(0.9, 0.95),
    eps=1e-8,
    fused=True,
)
micro_batches = args.global_batch // args.micro_batch

last = time.perf_counter()
for step in range(1, args.steps + 1):
    tokens = torch.randint(0, 256, (args.global_batch, args.seq_length + 1))
    loss_sum = 0.0
    for batch in tokens.split(args.micro_batch):
        logits = model(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()) / micro_batches
        loss.backward()
        loss_sum += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    now = time.perf_counter()
    print(json.dumps({"step": step, "loss": loss_sum, "step_time_ms": (now - last) * 1000}), flush=True)
    last = now

versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
print(json.dumps({"versions": versions, "threads": torch.get_num_threads(), "attention": args.attention}))
