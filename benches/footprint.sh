#!/usr/bin/env bash
# What a user pulls with each backend: packages, and the time of a cold release build. Writes results/footprint.md, which
# `bench report` puts into the docs.
set -euo pipefail
cd "$(dirname "$0")"
repository=$(cd .. && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_TARGET_DIR

row() {
    local label=$1 dependency=$2
    rm -rf "$work/user"
    mkdir -p "$work/user/src"
    printf '[package]\nname = "user"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n%s\n' "$dependency" >"$work/user/Cargo.toml"
    echo 'fn main() {}' >"$work/user/src/main.rs"
    cd "$work/user"
    cargo generate-lockfile --quiet
    cargo fetch --quiet
    local packages seconds
    # Without the user's own.
    packages=$(($(cargo tree --edges normal,build --prefix none | cut -d' ' -f1,2 | sort -u | wc -l) - 1))
    seconds=$( { TIMEFORMAT=%R; time cargo build --quiet --release --offline; } 2>&1 | tail -1)
    cd - >/dev/null
    printf '| %s | %s | %.0f |\n' "$label" "$packages" "$seconds"
}

ours() {
    printf 'persistent-map = { path = "%s/persistent-map", default-features = false, features = [%s] }' "$repository" "$1"
}

{
    printf '| | packages | cold release build, s |\n|---|---:|---:|\n'
    row '**persistent-map, in memory**' "$(ours '"in_memory"')"
    row '**persistent-map, SQLite**' "$(ours '"sqlite"')"
    row '**persistent-map, CSV**' "$(ours '"csv_backend"')"
    row '0.1.3, SQLite (with the SQLite it comes with)' $'persistent-map = "=0.1.3"\ntokio-rusqlite = { version = "=0.6.0", features = ["bundled"] }'
    row 'rusqlite by hand' $'rusqlite = { version = "0.39", features = ["bundled"] }\ndashmap = "6"'
    row 'redb' 'redb = "4"'
    row 'fjall' 'fjall = "3"'
    row 'heed (LMDB)' 'heed = { version = "0.23", default-features = false }'
} >"$work/footprint.md"
mkdir -p results
cp "$work/footprint.md" results/footprint.md
cat results/footprint.md
