#!/usr/bin/env bash
# Runs each target for FUZZ_SECONDS, one after the other; a line each at the end. Fails when anything was found.
#   run.sh BUILD DATA TARGET...
set -euo pipefail

build=$1
data=$2
shift 2
failed=0
lines=()
# What has been freed is kept for a while to find who still uses it. As much as the default in pieces of a few bytes takes more
# memory than the limit below, after ten minutes of uris.
export ASAN_OPTIONS=quarantine_size_mb=64
for target in "$@"; do
  corpus="$build/corpus/$target"
  found="$build/found/$target"
  log="$build/$target.log"
  mkdir -p "$corpus" "$found"
  if [ -z "$(ls -A "$data/$target")" ]; then
    echo "fuzz: $data/$target has no seeds" >&2
    exit 1
  fi
  options=(-max_total_time="${FUZZ_SECONDS:-60}" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256)
  found_any=0
  "$build/${target}_fuzzer" "${options[@]}" -artifact_prefix="$found/" -print_final_stats=1 "$corpus" "$data/$target" \
    > "$log" 2>&1 || found_any=1
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ "$found_any" -ne 0 ]; then
    result="FOUND SOMETHING, see $found and $log"
    failed=1
  elif [ "${executions:-0}" -eq 0 ]; then
    result="DID NOT RUN, see $log"
    failed=1
  else
    result="nothing found"
  fi
  lines+=("fuzz: $target: ${executions:-?} executions, $(find "$corpus" -type f | wc -l) inputs in its corpus, $result")
done
printf '%s\n' "${lines[@]}"
exit "$failed"
