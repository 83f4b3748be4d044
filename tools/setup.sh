#!/usr/bin/env bash
# Makes a Debian or Ubuntu machine with git and a Rust toolchain ready for test.sh, which sources
# this; run by itself, it gets everything. What is there is left alone, so a second run takes no time.

# Every core the project runs on: Cortex-M0, M3, M4F, M33 and RISC-V RV32IMC.
bare_targets=(
    thumbv6m-none-eabi
    thumbv7m-none-eabi
    thumbv7em-none-eabihf
    thumbv8m.main-none-eabihf
    riscv32imc-unknown-none-elf
)

say() { echo "setup: $*" >&2; }

fail() {
    say "$@"
    exit 1
}

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt_install <package>...: the packages, without what they merely recommend.
apt_install() {
    command -v apt-get >/dev/null || fail "needs $*; this is not Debian or Ubuntu: install them and run again"
    say "installing $*"
    if [ -z "${apt_updated:-}" ]; then
        root apt-get update -qq >/dev/null || say "apt-get update failed; going on with the lists there are"
        apt_updated=1
    fi
    root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need <command> <package>...: the packages, if there is no such command.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    apt_install "$@" && command -v "$command" >/dev/null || fail "needs the command $command: installing $* did not bring it"
}

# check_rust <rustc> <what to do if it is too old>: the version that Cargo.toml asks for, or later.
check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$("$1" --version | cut -d' ' -f2)
    printf '%s\n' "$needed" "$found" | sort --version-sort --check=quiet || fail "needs Rust $needed, $1 is $found: $2"
}

has_target() { [ -d "$(rustc --print target-libdir --target "$1")" ]; }

# Whether rustup can download: asked with a short wait, because a closed network may never answer.
rustup_downloads() {
    local server=${RUSTUP_DIST_SERVER:-https://static.rust-lang.org}
    command -v rustup >/dev/null || return
    need curl curl
    curl --silent --fail --head --max-time 5 --output /dev/null "$server/dist/channel-rust-stable.toml.sha256"
}

# rustup_add <target|component> <name>
rustup_add() {
    RUSTUP_MAX_RETRIES=1 timeout 300 rustup --quiet "$1" add "$2" 2>/dev/null
}

setup_host() {
    need cc gcc libc6-dev
    command -v cargo >/dev/null || fail "no Rust toolchain: install one from https://rustup.rs"
    check_rust rustc "run 'rustup update stable'"
    cargo fmt --version >/dev/null 2>&1 || rustup_add component rustfmt || fail "needs rustfmt: run 'rustup component add rustfmt'"
    cargo clippy --version >/dev/null 2>&1 || rustup_add component clippy || fail "needs clippy: run 'rustup component add clippy'"
}

setup_emulators() {
    need qemu-system-arm qemu-system-arm
    command -v qemu-system-riscv32 >/dev/null && return
    # A package of its own since Debian 13.
    local riscv=qemu-system-misc
    apt-cache show qemu-system-riscv >/dev/null 2>&1 && riscv=qemu-system-riscv
    need qemu-system-riscv32 "$riscv"
}

# Compilers for C and C++, for the host and for Arm.
setup_c() {
    need make make
    need cmake cmake
    need c++ g++ libc6-dev
    need arm-none-eabi-gcc gcc-arm-none-eabi
}

# What cargo installs, also where cargo itself is the distribution's.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

# Makes include/softedge.h; another version may lay it out differently.
cbindgen_version=0.29.4

setup_cbindgen() {
    [ "$(cbindgen --version 2>/dev/null)" = "cbindgen $cbindgen_version" ] && return
    say "installing cbindgen $cbindgen_version"
    cargo install --quiet --locked --version "$cbindgen_version" cbindgen || fail "needs cbindgen $cbindgen_version from crates.io"
}

# The library `core` for every bare-metal target: from rustup, else Debian's compiler and sources.
setup_bare_targets() {
    local target missing=()
    for target in "${bare_targets[@]}"; do
        has_target "$target" || missing+=("$target")
    done
    [ ${#missing[@]} = 0 ] && return
    if rustup_downloads; then
        say "adding the targets ${missing[*]}"
        for target in "${missing[@]}"; do
            rustup_add target "$target" || break
        done
        has_target "${missing[-1]}" && return
    fi
    if [ ! -e /usr/lib/rustlib/src/rust/library/core ] || [ ! -x /usr/bin/cargo ]; then
        say "rustup cannot download ${missing[*]}: Debian's compiler builds for them instead"
        apt_install rustc-web cargo-web rust-web-src || fail "needs either the one or the other"
    fi
    check_rust /usr/bin/rustc "run 'rustup target add ${missing[*]}'"
    [ -x "$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/rust-lld" ] || need ld.lld lld
}

# The full Fashion-MNIST, 60,000 + 10,000 images.
setup_data() {
    [ -d /usr/share/datasets/fashion-mnist ] || apt_install dataset-fashion-mnist || fail "needs dataset-fashion-mnist"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    cd "$(dirname "$0")/.."
    setup_host
    setup_emulators
    setup_bare_targets
    setup_c
    setup_cbindgen
    setup_data
fi
