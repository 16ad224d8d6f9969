#!/usr/bin/env bash
# Builds the fuzz targets on stable Rust and runs each for SECONDS_EACH seconds (default 12), or EXECUTIONS times.
#   cluster-tests/fuzz/run.sh [TARGET ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
host=$(rustc -vV | sed -n 's/^host: //p')
until=(-max_total_time="${SECONDS_EACH:-12}")
[ -z "${EXECUTIONS:-}" ] || until=(-runs="$EXECUTIONS")
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frame requests structured batch files native)
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
export AWS_LC_SYS_NO_JITTER_ENTROPY=1
# With --target the flags do not reach build scripts.
cargo build --quiet --target "$host" --bins
failed=0
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target"
  log=$(mktemp)
  if "target/$host/debug/$target" "corpus/$target" "${until[@]}" -rss_limit_mb=512 -timeout=1 \
      -malloc_limit_mb=64 -print_final_stats=1 -artifact_prefix="corpus/$target-" >"$log" 2>&1; then
    echo "fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions, no finding"
  else
    echo "fuzz $target: FOUND SOMETHING"; tail -n 60 "$log"; failed=1
  fi
  rm -f "$log"
done
exit $failed
