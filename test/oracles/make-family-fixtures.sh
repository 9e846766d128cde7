#!/bin/sh
# Writes fixtures/{qwen2,llama}-*: `sh make-family-fixtures.sh PYTHON`, where PYTHON has torch 2.13 and transformers 5.18
# (pip install torch==2.13.0 transformers==5.18.0). Vocabularies that 2 does not divide, heads narrower and wider than
# hidden / heads, files of both forms.
set -e
cd "$(dirname "$0")"
make() { "$1" make-fixture.py "../../fixtures/$2" "$3" $4; }
make "$1" qwen2-tied 21 "family=qwen2 vocab=97 hidden=24 heads=4 kv=2 head_dim=8 bf16=true"
make "$1" qwen2-untied 22 "family=qwen2 vocab=90 hidden=32 heads=4 kv=2 tied=false pad=3 shards=2 old=true eps=1e-5"
make "$1" llama-scaled 23 "family=llama vocab=101 hidden=32 heads=4 kv=2 head_dim=16 llama3=8 theta=1000 seq=40 batch=2 old=true eps=1e-5"
make "$1" llama-untied 24 "family=llama vocab=75 hidden=32 heads=4 kv=4 head_dim=8 tied=false theta=500000 shards=2 bf16=true eps=1e-5"
