#!/usr/bin/env bash
# Checks and measures a bundle on a machine with GPUs: no Node.js, npm, compiler or network is needed there. A bundle holds
# this script too, and is named as its archive or as the folder of what was unpacked.
#
#   OUT=results scripts/gpu-check.sh mbridge.tar.xz doctor native fixtures bits step-0.6b@120
#
# Parts run in the order given, each with a time limit in seconds (part@seconds sets another). $OUT/log.txt receives
# everything, $OUT/summary.txt the closing table, $OUT/results.ndjson what commands say in JSON. `scripts/gpu-check.sh` alone
# lists the parts.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: OUT=folder scripts/gpu-check.sh BUNDLE.tar.xz|FOLDER PART[@seconds]...
  machine      nvidia-smi: GPUs, driver, links
  doctor       what mbridge finds and would use
  native       every op against float64, on the CUDA backend (native-bench: and its timings)
  memcheck, racecheck   the same under compute-sanitizer (ONLY=text limits it to some ops)
  fixtures, bits, layouts, precision, sampled, failures  parts of `mbridge bench check`
  torch        bf16 against transformers (needs a python3 with torch and transformers)
  gemm, attention, ops, bound, comm    `mbridge bench` of Qwen3-4B (tp 1); gemm-tp2, attention-tp2, ops-tp2, bound-tp2
  step-0.6b    one GPU, 4 sequences a step
  step-1.7b    one GPU, 2 sequences a step
  step-4b-dp   data parallel, 4 micro-batches; step-4b-dp1 and step-4b-dp16: 1 and 16
  step-4b-tp2dp2, step-4b-tp2pp2, step-4b-seq1024   tp 2 on 4 GPUs; the last of 1,024 tokens
  step-8b      data parallel, optim_grads, 4 micro-batches
  park-1.7b    parked and back on one GPU: bits of the losses, memory, rates; park-dp on all, park-4b-tp2pp2 on 4
  quick-start  mbridge pretrain qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 with configs/qwen3-4b-quick-start.yaml
  quick-start-4096  the same 100 updates at the recipe's sequence length
  'sh:COMMAND' anything else, with mbridge on the PATH (LIMIT=seconds sets its time limit and that of the steps)
RANKS_PER_GPU=K lets K processes share each GPU (NCCL 2.30), for layouts of more processes than there are GPUs.
groups: correct = machine doctor native fixtures bits layouts precision torch sampled failures; speed = gemm attention ops bound comm
TEXT
  exit 2
}

[ $# -ge 2 ] || usage
bundle=$1
shift
: "${OUT:=$PWD/gpu-results}"
mkdir -p "$OUT"
log=$OUT/log.txt
results=$OUT/results.ndjson
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d /tmp/mbridge-gpu.XXXXXX)
trap 'rm -rf "$work"' EXIT

# Multicast between GPUs stays off unless it is asked for: its failures outlive the process on shared machines.
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
export NO_COLOR=1

unpack() {
  if command -v xz >/dev/null; then
    tar -C "$work" -xJf "$bundle"
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$bundle" "$work"
  fi
}
if [ -d "$bundle" ]; then
  home=$(cd "$bundle" && pwd)
else
  unpack || { echo "cannot unpack $bundle"; exit 4; }
  home=$(echo "$work"/mbridge-*)
fi
export PATH=$home:$PATH
engine=$home/native/build/libmbridge_cuda.so
tests=$home/native/build/mbridge_native_tests
[ -f "$engine" ] || { echo "$bundle holds no libmbridge_cuda.so: build it where nvcc is, then bundle again"; exit 4; }

# cuBLAS, NCCL and cuDNN of a pip installation, where neither the bundle nor the system has them.
if [ -z "${MBRIDGE_CUDA_LIBS:-}" ] && [ ! -d "$home/.cuda" ] && command -v python3 >/dev/null; then
  packages=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  if [ -d "$packages/nvidia" ]; then export MBRIDGE_CUDA_LIBS=$packages; fi
fi

ranks_per_gpu=${RANKS_PER_GPU:-1}
ranks=$(($(nvidia-smi -L 2>/dev/null | grep -c '^GPU ') * ranks_per_gpu))
text=$home/data/moby-dick.txt
oracle=$work/oracle
step_flags=(--steps "${STEPS:-20}" --warmup "${WARMUP:-5}" --profile)

# needs COUNT: fails, saying so, where there are fewer GPUs or fewer that share them.
needs() {
  [ "$ranks" -ge "$1" ] && return 0
  echo "skipped: needs $1 GPUs, $ranks are here"
  return 77
}

bench() {
  mbridge bench "$@" --device cuda --record "$results"
}

step() {
  bench step "$@" "dist.ranks_per_gpu=$ranks_per_gpu" "${step_flags[@]}"
}

check() {
  mbridge bench check --parts "$1" --device cuda --fixtures "$repository/fixtures" --oracle "$oracle" --ranks-per-gpu "$ranks_per_gpu"
}

torch_oracle() {
  [ -f "$oracle/oracle.json" ] && return 0
  PYTHONUNBUFFERED=1 python3 "$repository/bench/torch_bf16_oracle.py" "$oracle" --text "$text"
}

run_part() {
  case $1 in
    machine) nvidia-smi && nvidia-smi topo -m; nproc; free -g | head -2; df -h /dev/shm | tail -1 ;;
    doctor) mbridge doctor && mbridge doctor --json | tee -a "$results" | grep -q '"usable":{"cpu":true,"cuda":true' ;;
    native) "$tests" --backend "$engine" && "$home/native/build/mbridge_peer_tests" ;;
    native-bench) "$tests" --backend "$engine" --bench ;;
    memcheck | racecheck)
      compute-sanitizer --tool "$1" --error-exitcode 9 "$tests" --backend "$engine" ${ONLY:+--only "$ONLY"} ;;
    fixtures | bits | layouts | precision | sampled | failures) check "$1" ;;
    torch) torch_oracle && check torch ;;
    gemm | attention | ops | bound) bench "$1" qwen3-4b ;;
    gemm-tp2 | attention-tp2 | ops-tp2 | bound-tp2) bench "${1%-tp2}" qwen3-4b --tp-size 2 ;;
    comm) needs 2 && bench comm --nproc "$ranks" "dist.ranks_per_gpu=$ranks_per_gpu" ;;
    step-0.6b) step qwen3-0.6b --nproc 1 train.global_batch_size=4 ;;
    step-1.7b) step qwen3-1.7b --nproc 1 train.global_batch_size=2 ;;
    step-4b-dp) needs 2 && step qwen3-4b --nproc "$ranks" train.global_batch_size=$((4 * ranks)) ;;
    step-4b-dp1) needs 2 && step qwen3-4b --nproc "$ranks" train.global_batch_size="$ranks" ;;
    step-4b-dp16) needs 2 && step qwen3-4b --nproc "$ranks" train.global_batch_size=$((16 * ranks)) ;;
    step-4b-tp2dp2) needs 4 && step qwen3-4b --nproc 4 --tp-size 2 train.global_batch_size=4 ;;
    step-4b-tp2pp2) needs 4 && step qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 train.global_batch_size=32 ;;
    step-4b-seq1024)
      needs 4 && step qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 train.global_batch_size=32 model.seq_length=1024 ;;
    step-8b)
      needs 4 && step qwen3-8b --nproc 4 train.global_batch_size=16 ddp.data_parallel_sharding_strategy=optim_grads ;;
    park-1.7b) bench park qwen3-1.7b --nproc 1 train.global_batch_size=2 ;;
    park-dp)
      needs 2 && bench park qwen3-0.6b --nproc "$ranks" train.global_batch_size=$((2 * ranks)) \
        "dist.ranks_per_gpu=$ranks_per_gpu" ddp.data_parallel_sharding_strategy=optim_grads ;;
    park-4b-tp2pp2)
      needs 4 && bench park qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 train.global_batch_size=8 \
        "dist.ranks_per_gpu=$ranks_per_gpu" ;;
    quick-start)
      needs 4 && mbridge pretrain qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 --log-dir "$work/quick-start" \
        --config "$repository/configs/qwen3-4b-quick-start.yaml" "dist.ranks_per_gpu=$ranks_per_gpu" ;;
    quick-start-4096)
      needs 4 && mbridge pretrain qwen3-4b --nproc 4 --tp-size 2 --pp-size 2 --log-dir "$work/quick-start-4096" \
        --config "$repository/configs/qwen3-4b-quick-start.yaml" model.seq_length=4096 \
        "dist.ranks_per_gpu=$ranks_per_gpu" ;;
    sh:*) bash -c "${1#sh:}" ;;
    *) echo "no part $1"; return 2 ;;
  esac
}

limit_of() {
  case $1 in
    machine | doctor) echo 60 ;;
    fixtures | bits | layouts | failures) echo 300 ;;
    native | native-bench | memcheck | racecheck | precision | sampled | torch) echo 240 ;;
    quick-start) echo 240 ;;
    quick-start-4096) echo 360 ;;
    *) echo "${LIMIT:-150}" ;;
  esac
}

# timed SECONDS PART: in a process group of its own, so that all of it ends at the limit.
timed() {
  local seconds=$1
  export -f run_part needs bench step check torch_oracle
  export bundle repository work home engine tests ranks ranks_per_gpu text oracle results
  export STEP_FLAGS="${step_flags[*]}"
  # shellcheck disable=SC2016
  timeout --kill-after=10 "$seconds" bash -c 'read -ra step_flags <<<"$STEP_FLAGS"; run_part "$1"' part "$2"
}

parts=()
for part in "$@"; do
  case $part in
    correct) parts+=(machine doctor native fixtures bits layouts precision torch sampled failures) ;;
    speed) parts+=(gemm attention ops bound comm) ;;
    *) parts+=("$part") ;;
  esac
done

summary=()
failed=0
begun=$SECONDS
for each in "${parts[@]}"; do
  part=$each
  limit=$(limit_of "$part")
  if [[ $each =~ ^([^:]*)@([0-9]+)$ ]]; then
    part=${BASH_REMATCH[1]}
    limit=${BASH_REMATCH[2]}
  fi
  start=$SECONDS
  printf '\n===== %s (at most %s s) =====\n' "$part" "$limit" | tee -a "$log"
  timed "$limit" "$part" </dev/null >"$work/part.log" 2>&1
  status=$?
  cat "$work/part.log" >>"$log"
  tail -n "${TAIL:-30}" "$work/part.log"
  case $status in
    0) verdict=ok ;;
    77) verdict=$(tail -n 1 "$work/part.log") ;;
    124 | 137) verdict="FAILED: no end within $limit s" ;;
    *) verdict="FAILED: exit code $status" ;;
  esac
  case $verdict in FAILED*) failed=$((failed + 1)) ;; esac
  summary+=("$(printf '%-18s %4d s  %s' "${part:0:18}" $((SECONDS - start)) "$verdict")")
  printf '%s\n' "${summary[@]}" >"$OUT/summary.txt"
done

printf '\n===== summary: %s processes, %d s =====\n' "$ranks" $((SECONDS - begun))
printf '%s\n' "${summary[@]}"
[ "$failed" = 0 ]
