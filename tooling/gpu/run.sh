#!/usr/bin/env bash
# Runs the GPU tests and benchmarks of deepspeed-ts on a machine that has a GPU but needs neither Node nor network. Made by
# `npm run gpu:pack`, which puts this file and the archives beside it into .gpu/.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
bash run.sh test [vitest arguments]    the GPU tests; skipped with a message where there is no GPU
bash run.sh ops [names]                the op contract with a process for each op
bash run.sh bench gpu [options]        training steps through the engine (--shape --batch --stage --precision --world --steps --checkpoint)
bash run.sh bench trainer [options]    what the Trainer costs beside the bare engine (--shape --batch --accumulation --stage --precision --steps)
bash run.sh bench decode [options]     generation (--device cuda --shape --batch --prompt --new --graphs --sample)
bash run.sh bench kernels [names]      each kernel beside the GPU's copy bandwidth and matmul rate
bash run.sh bench load [options]       loads a model directory (--shape --device --first-loss), beside a bare read of its file
bash run.sh bench curve --out FOLDER   losses for bench/peers/torch_curve.py to lay PyTorch's beside
bash run.sh bench peers [train ...|kernels|decode ...|curve FOLDER]   PyTorch on the same work, where python3 has it
bash run.sh sanitize [memcheck|racecheck ...]  the op contract under compute-sanitizer
bash run.sh vitest ARGUMENTS           vitest itself, for example: vitest run packages/test-kit/src/cpu.test.ts
bash run.sh node ARGUMENTS             a script, from TypeScript source
bash run.sh all                        test, bench kernels, bench gpu and bench peers
TEXT
}

# One folder for each content of the archives; a second call finds it unpacked.
unpack() {
  local sum archive
  sum=$(cat "$here"/*.tar.xz | sha256sum | cut -c1-16)
  folder=${DEEPSPEED_TS_GPU_FOLDER:-${TMPDIR:-/tmp}/deepspeed-ts-gpu-$sum}
  if [ ! -e "$folder/.complete" ]; then
    mkdir -p "$folder"
    for archive in "$here"/*.tar.xz; do extract "$archive" & done
    for archive in "$here"/*.tar.xz; do wait -n; done
    touch "$folder/.complete"
  fi
  cd "$folder/main"
  export PATH="$folder/bin:$PATH" NO_COLOR=1
}

extract() {
  if command -v xz >/dev/null; then
    tar -xJf "$1" -C "$folder"
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1], "r:xz").extractall(sys.argv[2], filter="fully_trusted")' "$1" "$folder"
  fi
}

# NVIDIA's libraries are often pip's: the addon looks below VIRTUAL_ENV.
find_wheels() {
  if [ -z "${VIRTUAL_ENV:-}" ] && command -v python3 >/dev/null; then
    VIRTUAL_ENV=$(python3 -c 'import sys; print(sys.prefix)')
    export VIRTUAL_ENV
  fi
}

describe() {
  echo "commit $(cat commit), node $(node --version), $(uname -sr), $(nproc) CPUs"
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader || true
  else
    echo 'no nvidia-smi on this machine'
  fi
}

vitest() { node node_modules/vitest/vitest.mjs "$@"; }
script() { node --conditions=@deepspeed-ts/source --import tsx "$@"; }

tests() {
  local status=0
  vitest run packages/test-kit/src/cuda packages/kernels-cuda "$@" || status=1
  # Alone, because it takes all of the GPU's memory.
  [ $# -gt 0 ] || DEEPSPEED_TS_TEST_EXHAUSTION=1 vitest run packages/test-kit/src/cuda/memory.test.ts || status=1
  return $status
}

# The op contract with a process for each op: a kernel that breaks the device fails alone.
ops() {
  local names
  names=$(node --conditions=@deepspeed-ts/source --import tsx --input-type=module \
    -e "import('$PWD/packages/core/src/index.ts').then(({ ops }) => console.log(ops.map((op) => op.name).join('\n')))")
  export -f vitest
  for name in ${*:-$names}; do echo "$name"; done | xargs -P 6 -I{} bash -c \
    'if out=$(vitest run packages/test-kit/src/cuda/ops.test.ts -t "computes {} in" 2>&1); then echo "ok      {}"; else echo "FAILED  {}"; grep -E "Error:|element|✗|×" <<<"$out" | sort -u | head -12; fi'
}

sanitize() {
  command -v compute-sanitizer >/dev/null || { echo 'compute-sanitizer is not on the PATH (it comes with the CUDA toolkit)' >&2; return 1; }
  local tool status=0
  for tool in "${@:-memcheck}"; do
    echo "== $tool"
    # One reservation for all buffers would hide accesses beyond one of them: each gets memory of its own.
    DEEPSPEED_TS_CUDA_ALLOCATOR=plain compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 1 --print-limit 20 \
      "$(command -v node)" node_modules/vitest/vitest.mjs run packages/test-kit/src/cuda/ops.test.ts \
      --testTimeout=600000 --teardownTimeout=60000 || status=1
  done
  return $status
}

bench() {
  local what=${1:-}
  [ $# -gt 0 ] && shift
  case $what in
    gpu | trainer | kernels | curve | load | decode) script bench/src/main.ts "$what" "$@" ;;
    peers) peers "$@" ;;
    *) usage; return 2 ;;
  esac
}

peers() {
  case ${1:-} in
    train) shift; python3 bench/peers/torch_train.py "$@" ;;
    kernels) shift; python3 bench/peers/torch_kernels.py "$@" ;;
    decode) shift; python3 bench/peers/torch_decode.py "$@" ;;
    curve) shift; python3 bench/peers/torch_curve.py "$@" ;;
    *)
      python3 bench/peers/torch_train.py --shape gpt2-124m --batch 32 --mode compile
      python3 bench/peers/torch_train.py --shape llama-1b --batch 8 --mode compile
      python3 bench/peers/torch_kernels.py
      ;;
  esac
}

all() {
  local status=0
  tests || status=1
  bench kernels || status=1
  bench gpu --shape gpt2-124m --batch 32 || status=1
  bench gpu --shape llama-1b --batch 8 || status=1
  peers || status=1
  return $status
}

command=${1:-help}
[ $# -gt 0 ] && shift
case $command in help | -h | --help) usage; exit 0 ;; esac
unpack
find_wheels
describe
case $command in
  ops) ops "$@" ;;
  test) tests "$@" ;;
  bench) bench "$@" ;;
  sanitize) sanitize "$@" ;;
  vitest) vitest "$@" ;;
  node) script "$@" ;;
  all) all ;;
  *) usage; exit 2 ;;
esac
