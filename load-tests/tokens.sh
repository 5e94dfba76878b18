#!/bin/bash
# How far estimates of tokens are off, on texts of this repository and in five languages. Needs node and npm.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "SKIPPED: node and npm are not here"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! (cd "$folder" && npm init -y && npm install gpt-tokenizer@3) >"$folder/log" 2>&1; then
    echo "SKIPPED: gpt-tokenizer cannot be installed: $(tail -1 "$folder/log")"
    exit 0
fi
node load-tests/tokens/compare.mjs "$folder" "$PWD"
