#!/bin/sh
# Writes fixtures/qwen2-*: `sh make-family-fixtures.sh PYTHON`, where PYTHON has torch 2.13 and transformers 5.18
# (pip install torch==2.13.0 transformers==5.18.0). Vocabularies that 2 does not divide, heads narrower and wider than
# hidden / heads, files of both forms.
set -e
cd "$(dirname "$0")"
make() { "$1" make-fixture.py "../../fixtures/$2" "$3" $4; }
make "$1" qwen2-tied 21 "family=qwen2 vocab=97 hidden=24 heads=4 kv=2 head_dim=8 bf16=true"
make "$1" qwen2-untied 22 "family=qwen2 vocab=90 hidden=32 heads=4 kv=2 tied=false pad=3 shards=2 old=true eps=1e-5"
