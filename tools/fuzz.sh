#!/usr/bin/env bash
# Runs every fuzz test of the module for a while: tools/fuzz.sh [TIME]
set -euo pipefail
time=${1:-10s}

cd "$(dirname "$0")/.."
grep -rlE '^func Fuzz[A-Z_]' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -hoE '^func Fuzz\w+' "$dir"/*_test.go | cut -d' ' -f2 | sort -u | while read -r name; do
		echo "== $dir $name"
		go test -run='^$' -fuzz="^$name\$" -fuzztime="$time" "$dir"
	done
done
