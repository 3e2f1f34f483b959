#!/bin/sh
# Everything that needs an NVIDIA GPU, in under nine minutes and without a network: builds and
# installs the extension with CUDA, checks it, runs tests/gpu and compute-sanitizer, then the
# benchmark. All parts run, whatever fails; the exit status is 1 if any did.
#
#   sh tools/gpu.sh [FOLDER]        logs and JSON go there (default ./gpu-results)
#
#   PYTHON                          the Python to build with and to install into (python3)
#   SEEDBED_GPU_PARTS               some of: build check tests sanitize bench
#   SEEDBED_GPU_SECONDS             of the whole (520)
#   SEEDBED_CUDA_ARCHITECTURES      what to compile for (90)
#   SEEDBED_CMAKE_ARGS              more arguments for CMake
#   SEEDBED_BENCH_ARGS              of benchmarks.gpu (--quick)
set -u
out=${1:-gpu-results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
for name in build checks tests sanitize bench; do rm -f "$out/$name.log"; done
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
parts=${SEEDBED_GPU_PARTS:-build check tests sanitize bench}
deadline=$(($(date +%s) + ${SEEDBED_GPU_SECONDS:-520}))
failed=
unset JAX_PLATFORMS
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

wanted() { case " $parts " in *" $1 "*) true ;; *) false ;; esac; }
left() { echo $((deadline - $(date +%s))); }

# run NAME LOG SECONDS COMMAND...: appends to the log; ends the command when its time is over.
run() {
  name=$1 log=$out/$2.log limit=$3
  shift 3
  remaining=$(left)
  [ "$limit" -le "$remaining" ] || limit=$remaining
  if [ "$limit" -lt 5 ]; then
    echo "== $name: no time was left"
    return 1
  fi
  started=$(date +%s) status=0
  echo "== $name: $*" >>"$log"
  timeout -k 5 "$limit" "$@" >>"$log" 2>&1 || status=$?
  if [ "$status" -eq 0 ]; then
    echo "== $name: ok, $(($(date +%s) - started)) s"
  else
    echo "== $name: FAILED with status $status after $(($(date +%s) - started)) s; its last lines:"
    tail -n 25 "$log"
  fi
  return "$status"
}

build() {
  # jaxlib's headers are those of the installed one, which is the one that will load this.
  run build build 170 env SEEDBED_REQUIRE_NATIVE=1 PIP_BREAK_SYSTEM_PACKAGES=1 \
    CMAKE_ARGS="${CMAKE_ARGS:-} ${SEEDBED_CMAKE_ARGS:-}" "$python" -m pip install -v --no-build-isolation --no-deps --no-index \
    --force-reinstall -Ccmake.define.SEEDBED_CUDA=ON \
    -Ccmake.define.CMAKE_CUDA_ARCHITECTURES="${SEEDBED_CUDA_ARCHITECTURES:-90}" .
}

check() {
  nvidia-smi >"$out/checks.log" 2>&1
  run info checks 40 "$python" -m seedbed info
  informed=$?
  run doctor checks 90 "$python" -m seedbed doctor --quick
  [ $? -eq 0 ] && [ $informed -eq 0 ]
}

tests() {
  more=
  # Compiling takes most of the time, and the device has room for several.
  "$python" -c "import xdist" 2>/dev/null && more="-n ${SEEDBED_GPU_PROCESSES:-6}"
  # Warnings of plugins that happen to be installed must not end the run.
  # shellcheck disable=SC2086
  run tests tests 220 env SEEDBED_REQUIRE_GPU=1 SEEDBED_REQUIRE_NATIVE=1 \
    "$python" -m pytest tests/gpu -v -W default -p no:cacheprovider -p no:benchmark --tb=short \
    --durations=15 --maxfail=30 --junitxml="$out/tests.xml" $more
}

sanitize() {
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  if [ ! -x "$sanitizer" ]; then
    echo "== sanitize: FAILED, there is no compute-sanitizer"
    return 1
  fi
  # XLA's own kernels need not be looked at, but what they initialise is to be known.
  only=
  "$sanitizer" --help 2>&1 | grep -q -e "--kernel-name " && only="--kernel-name kns=seedbed"
  tools="memcheck racecheck initcheck"
  for tool in $tools; do
    (
      extra=$only
      [ $tool != initcheck ] || extra=
      # Calls of the driver return errors on purpose, as when XLA asks what it can do.
      [ $tool != memcheck ] || extra="$only --report-api-errors no --padding 256"
      # shellcheck disable=SC2086
      run "$tool" "sanitize-$tool" 150 "$sanitizer" --tool $tool $extra --print-limit 20 \
        --error-exitcode 9 "$python" tests/gpu/sanitize_small.py
      echo $? >"$out/sanitize-$tool.status"
    ) >"$out/sanitize-$tool.txt" 2>&1 &
  done
  wait
  problems=0
  for tool in $tools; do
    cat "$out/sanitize-$tool.txt"
    [ "$(cat "$out/sanitize-$tool.status")" = 0 ] || problems=1
  done
  cat "$out"/sanitize-*.log >"$out/sanitize.log"
  rm -f "$out"/sanitize-*
  return $problems
}

bench() {
  library=$(cd / && "$python" -c 'from seedbed import _cuda; print(_cuda.__file__)')
  run counts bench 60 "$python" tools/sass.py "$library" --json "$out/ops.json"
  counts=
  [ ! -s "$out/ops.json" ] || counts="--ops $out/ops.json"
  budget=$(($(left) - 25))
  # shellcheck disable=SC2086
  run bench bench 600 "$python" -m benchmarks.gpu ${SEEDBED_BENCH_ARGS:---quick} $counts \
    --budget "$budget" --out "$out"
}

if wanted build; then build || failed="$failed build"; fi
if wanted check; then check || failed="$failed check"; fi
# The sanitizer and the tests share the device; the benchmark has it to itself.
if wanted sanitize; then
  (sanitize) >"$out/sanitize.txt" 2>&1 &
  sanitizing=$!
fi
if wanted tests; then tests || failed="$failed tests"; fi
if wanted sanitize; then
  wait $sanitizing || failed="$failed sanitize"
  cat "$out/sanitize.txt"
  rm -f "$out/sanitize.txt"
fi
if wanted bench; then bench || failed="$failed bench"; fi

grep -ho 'value="[^"]*drawn numbers[^"]*' "$out/tests.xml" 2>/dev/null | cut -c8-
grep -h " passed\| failed\| error" "$out/tests.log" 2>/dev/null | tail -n 1
grep -h "ERROR SUMMARY\|RACECHECK SUMMARY" "$out/sanitize.log" 2>/dev/null
if wanted bench; then sed -n '/, driver /,$p' "$out/bench.log" 2>/dev/null; fi
echo "took $((${SEEDBED_GPU_SECONDS:-520} - $(left))) s; logs in $out"
if [ -n "$failed" ]; then
  echo "FAILED:$failed"
  exit 1
fi
echo "all parts passed"
