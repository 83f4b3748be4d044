#!/usr/bin/env bash
# Runs every test: `./test.sh`. It first installs what is missing (Debian or Ubuntu, with git and a
# Rust toolchain). What cannot be installed is skipped with a word; `./test.sh --strict` fails there.
set -euo pipefail
cd "$(dirname "$0")"

case "${1:-}" in
    '') strict= ;;
    --strict) strict=1 ;;
    *) echo "usage: ./test.sh [--strict]" >&2 && exit 2 ;;
esac

# One build of everything, never resumed: incremental files would only be written.
export CARGO_INCREMENTAL=0

. tools/setup.sh

# step <title> <command>...: runs the command under its title, then says how long it took.
step() {
    local title=$1 started=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "   $((SECONDS - started)) s"
}

# able <title> <set-up>: whether the set-up works; where it does not, the tests of that title are
# skipped, or everything fails in strict mode.
able() {
    ("$2") && return
    [ -z "$strict" ] || exit 1
    echo "== $1: SKIPPED, see above"
    return 1
}

# The feature sets that differ in code: nothing, each optional part by itself, everything.
feature_sets=(
    "--no-default-features"
    "--no-default-features --features alloc"
    "--no-default-features --features defmt,fast-math"
    "--features std"
    "--features train"
    "--features cli"
    "--no-default-features --features capi"
    "--features cli,capi,defmt,fast-math"
)

formatting() {
    cargo fmt --check
    local manifest
    for manifest in firmware-examples/{*,boards/*}/Cargo.toml; do
        cargo fmt --check --manifest-path "$manifest"
    done
}

lints() {
    local features
    for features in "${feature_sets[@]}"; do
        cargo clippy --quiet --all-targets $features -- -D warnings
    done
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --features cli,capi
}

# Whether include/softedge.h is what cbindgen makes of src/capi.rs. (Its own --verify overwrites the file.)
c_header() {
    mkdir -p target
    cbindgen --quiet --config cbindgen.toml src/capi.rs --output target/softedge.h
    diff -u include/softedge.h target/softedge.h && return
    echo "include/softedge.h is not of this src/capi.rs: cp target/softedge.h include/softedge.h" >&2
    return 1
}

# The library with all that a device can use, for every core; without, it is built for the boards. With
# the profile of their firmware, so that what is built here serves there.
bare_builds() {
    export CARGO_TARGET_DIR=target/firmware CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_LTO=true CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
    local target
    for target in "${bare_targets[@]}"; do
        tools/bare-cargo rustc --quiet --release --lib --no-default-features --features alloc,defmt,fast-math \
            --target "$target" -- -D warnings
    done
}

# Debian's compiler, which stands in where rustup cannot download, has no clippy.
firmware_lints() {
    local target=thumbv7em-none-eabihf package
    has_target "$target" || return 0
    export CARGO_TARGET_DIR=$PWD/target/firmware SOFTEDGE_MODEL=$PWD/firmware-examples/minimal/src/gesture.soft
    local clippy=(cargo clippy --quiet --release)
    for package in firmware-examples/{*,boards/*}/Cargo.toml; do
        package=${package%Cargo.toml}
        cd "$package"
        case $package in
            */boards/*/) "${clippy[@]}" -- -D warnings ;; # each for its own chip
            */motion/) "${clippy[@]}" --all-targets -- -D warnings ;; # its tests run on the host
            */bench/) # its firmware, and the host's program that runs it
                SOFTEDGE_MEMORY=mps2 "${clippy[@]}" --target "$target" --bin ops --bin model --bin steps --features firmware -- -D warnings
                "${clippy[@]}" -- -D warnings
                ;;
            */emulated/)
                "${clippy[@]}" --target "$target" -- -D warnings
                "${clippy[@]}" --target "$target" --features steps -- -D warnings
                ;;
            *) "${clippy[@]}" --target "$target" -- -D warnings ;;
        esac
        cd - >/dev/null
    done
}

boards() {
    cargo test --quiet --features cli --test boards -- --nocapture
}

board_packages() {
    cargo test --quiet --features cli --test packages -- --nocapture
}

uart() {
    cargo test --quiet --features cli --test uart
}

c_firmware() {
    cargo test --quiet --features cli --test c -- --nocapture
}

# What the ops, the presets and their longest steps cost on every core, against what they cost when
# firmware-examples/bench/expected.toml was written; the scores of every preset on every core, against the host's.
instruction_counts() {
    export CARGO_TARGET_DIR=$PWD/target/firmware
    local bench=(cargo run --quiet --release --manifest-path firmware-examples/bench/Cargo.toml -- --assert)
    "${bench[@]}"
    "${bench[@]}" --preset all --step 1 --step 8
}

# The library as a device has it: plain matrix products, libm and micromath in place of `std`.
plain_tests() {
    local features
    for features in alloc,capi alloc,fast-math; do
        cargo test --quiet --lib --no-default-features --features "$features"
    done
}

full_data() {
    cargo test --quiet --features cli --lib data::idx -- --ignored
}

setup_host
step "formatting" formatting
step "lints" lints
step "documentation" documentation
if able "C header" setup_cbindgen; then
    step "C header" c_header
fi
if able "bare-metal builds" setup_bare_targets; then
    (step "bare-metal builds" bare_builds)
    (step "lints of the firmware" firmware_lints)
    step "packages for real boards" board_packages
    if able "emulated boards" setup_emulators; then
        step "emulated boards" boards
        step "models over a UART" uart
        (step "instruction counts" instruction_counts)
        if able "C firmware" setup_c; then
            step "C firmware" c_firmware
        fi
    fi
fi
if able "full Fashion-MNIST" setup_data; then
    step "full Fashion-MNIST" full_data
fi
step "tests of the plain library" plain_tests
echo "== tests"
cargo test --features cli
