#!/usr/bin/env python3
"""Writes fixtures/rope.json: what transformers makes of rotary embeddings that are scaled.

usage: make-rope-fixture.py OUT_FILE
Of each: the rope_parameters, head_dim, max_position_embeddings and the sequence's length, and transformers' inverse
frequencies and the factor of its cosines and sines.
"""
import json, sys
from transformers import Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

LONG = {"factor": 4.0, "original_max_position_embeddings": 32768}
cases = []
def case(parameters, head_dim=128, longest=131072, seq=65536, theta=1e6):
    rope = {**parameters, "rope_theta": theta}
    config = Qwen3Config(head_dim=head_dim, max_position_embeddings=longest, rope_parameters=dict(rope))
    frequencies, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=seq)
    cases.append({"rope_parameters": rope, "head_dim": head_dim, "max_position_embeddings": longest, "seq_length": seq,
                  "frequencies": frequencies.tolist(), "factor": factor})

case({"rope_type": "linear", "factor": 2.5})
case({"rope_type": "dynamic", "factor": 2.0}, longest=4096, seq=16384, theta=1e4)
case({"rope_type": "dynamic", "factor": 2.0}, longest=4096, seq=1024, theta=1e4)
case({"rope_type": "yarn", **LONG})
case({"rope_type": "yarn", **LONG, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}, head_dim=64)
case({"rope_type": "yarn", **LONG, "attention_factor": 0.7})
case({"rope_type": "yarn", **LONG, "mscale": 0.707, "mscale_all_dim": 1.0})
case({"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16384})
case({"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 4})
case({"rope_type": "llama3", **LONG, "low_freq_factor": 1.0, "high_freq_factor": 4.0}, theta=5e5)
json.dump(cases, open(sys.argv[1], "w"))
