#!/bin/sh
# Writes fixtures/{qwen2,llama}-* and qwen3-{yarn,packed}: `sh make-family-fixtures.sh PYTHON`, where PYTHON has torch 2.13 and transformers 5.18
# (pip install torch==2.13.0 transformers==5.18.0). Vocabularies that 2 does not divide, heads narrower and wider than
# hidden / heads, files of both forms.
set -e
cd "$(dirname "$0")"
make() { "$1" make-fixture.py "../../fixtures/$2" "$3" $4; }
# The original lengths are short, so that every band of frequencies is there.
llama3='{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}'
yarn='{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":16,"beta_fast":4.0}'
make "$1" qwen2-tied 21 "family=qwen2 vocab=97 hidden=24 heads=4 kv=2 head_dim=8 bf16=true"
make "$1" qwen2-untied 22 "family=qwen2 vocab=90 hidden=32 heads=4 kv=2 tied=false pad=3 shards=2 old=true eps=1e-5"
make "$1" llama-scaled 23 "family=llama vocab=101 hidden=32 heads=4 kv=2 head_dim=16 rope=$llama3 theta=1000 seq=40 batch=2 old=true eps=1e-5"
make "$1" llama-untied 24 "family=llama vocab=75 hidden=32 heads=4 kv=4 head_dim=8 tied=false theta=500000 shards=2 bf16=true eps=1e-5"
make "$1" qwen3-yarn 25 "family=qwen3 vocab=64 hidden=32 heads=4 kv=2 head_dim=16 rope=$yarn theta=1000 seq=48 batch=2"
make "$1" qwen3-packed 26 "family=qwen3 vocab=71 hidden=32 heads=4 kv=2 head_dim=8 seq=48 batch=4 packed=true"
