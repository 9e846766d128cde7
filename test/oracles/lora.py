# Writes fixtures/lora: an adapter of fixtures/qwen2-tied as peft saves it, the loss and gradients of the first batch with it, and
# a trajectory of updates of the adapter alone, all of them in float64.
# peft 0.21, transformers 5.18, torch 2.13: python test/oracles/lora.py
import json, math, shutil, torch
from pathlib import Path
from peft import LoraConfig, get_peft_model, PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

root = Path(__file__).resolve().parents[2] / "fixtures"
base, out = root / "qwen2-tied", root / "lora"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
torch.manual_seed(7); torch.set_num_threads(2); torch.use_deterministic_algorithms(True)
load = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")

# B away from zero, so that A has a gradient.
model = get_peft_model(load(), LoraConfig(r=16, lora_alpha=32, target_modules=MODULES, task_type="CAUSAL_LM"))
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_B" in name: p.copy_(0.05 * torch.randn_like(p))
shutil.rmtree(out, ignore_errors=True)
model.save_pretrained(out)
(out / "README.md").unlink(missing_ok=True)
path = out / "adapter_config.json"
config = json.loads(path.read_text())
config["base_model_name_or_path"] = "qwen2-tied"
config["target_modules"] = sorted(config["target_modules"])
path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

recipe = json.loads((base / "trajectory.json").read_text())
opt, B, UPDATES = recipe["optimizer"], recipe["batch"], 6
rows = [json.loads(line)["input_ids"] for line in (base / "tokens.jsonl").read_text().splitlines()]
batches = [torch.tensor(rows[i * B:(i + 1) * B]) for i in range(UPDATES)]
model = PeftModel.from_pretrained(load(), out, is_trainable=True).double()

def loss_of(t):
    logits = model(input_ids=t[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), t[:, 1:].reshape(-1))

trained = {n.removeprefix("base_model.model.").replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
loss = loss_of(batches[0]); loss.backward()
save_file({f"grad.{n}": p.grad.float().contiguous() for n, p in trained.items()}, out / "expected.safetensors")
model.zero_grad()

def lr_at(i):
    lr, low, warm = opt["lr"], opt["min_lr"], opt["warmup_steps"]
    if i < warm: return lr * (i + 1) / warm
    return low + 0.5 * (lr - low) * (1 + math.cos(math.pi * (i + 1 - warm) / (opt["decay_steps"] - warm)))

adamw = torch.optim.AdamW(trained.values(), betas=(opt["beta1"], opt["beta2"]), eps=opt["eps"], weight_decay=opt["weight_decay"], foreach=False)
steps = []
for i, t in enumerate(batches):
    for group in adamw.param_groups: group["lr"] = lr_at(i)
    value = loss_of(t); value.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), opt["clip_grad_norm"])
    adamw.step(); adamw.zero_grad(set_to_none=True)
    steps.append({"step": i + 1, "loss": value.item(), "grad_norm": norm.item(), "lr": lr_at(i)})
(out / "trajectory.json").write_text(json.dumps({"loss": loss.item(), "steps": steps}, indent=1) + "\n")
print(out, [f"{s['loss']:.5f}" for s in steps], [f"{s['grad_norm']:.4f}" for s in steps])
