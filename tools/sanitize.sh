#!/bin/sh
# Builds tests/native/fuzz_plan.cc under sanitizers and runs it: memory and undefined behaviour,
# then data races. Usage: tools/sanitize.sh [rounds] [seed]
set -eu
cd "$(dirname "$0")/.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
sources="csrc/call.cc csrc/plan.cc csrc/cpu/cipher.cc csrc/cpu/dispatch.cc csrc/cpu/schedule.cc
  csrc/cpu/tasks.cc csrc/cpu/worker.cc csrc/cuda/device_draw.cc csrc/cuda/folds.cc
  csrc/cuda/schedule.cc"
case $(uname -m) in
  x86_64) isas="baseline avx2 avx512" ;;
  *) isas="neon" ;;
esac

flags_of() {
  case $1 in
    avx2) echo "-mavx2 -mfma" ;;
    avx512) echo "-mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma" ;;
  esac
}

check() {
  name=$1 flags="-std=c++17 -g -O1 -fno-omit-frame-pointer -w -Icsrc $2"
  shift 2
  objects=
  for isa in $isas; do
    # shellcheck disable=SC2046,SC2086
    ${CXX:-c++} $flags -ffp-contract=off -fno-math-errno -fno-trapping-math $(flags_of $isa) \
      -DSEEDBED_ISA=$isa -c csrc/cpu/kernels.cc -o "$build/$isa.o"
    objects="$objects $build/$isa.o"
  done
  # shellcheck disable=SC2086
  ${CXX:-c++} $flags -pthread tests/native/fuzz_plan.cc $sources $objects -o "$build/$name"
  echo "== $name"
  "$build/$name" "$@"
}

check address "-fsanitize=address,undefined -fno-sanitize-recover=all" "$@"
check thread "-fsanitize=thread" "$@"
