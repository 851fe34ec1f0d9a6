#!/usr/bin/env bash
# What the kernels execute on ARM cores, by class of instruction and kind of layer, as qemu counts it: the dot products are SDOT,
# or on cores without it SMULL, SMLAL, SADALP and SADDLP. No cache and no pipe is modelled; a core with two vector pipes reaches
# at most the share of its dot products' peak that they have in its vector arithmetic.
#
#   benches/mix.sh [CORE...]     cortex-a76, cortex-a72 and cortex-a53 by default
#
# Wants qemu-user, gcc, gcc-aarch64-linux-gnu, and what `cross/setup` sets up for aarch64.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

environment=$(cross/setup)
eval "$environment"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
gcc -O2 -shared -fPIC -Wall -Wextra -Werror -o "$work/mix.so" benches/mix.c
cargo build --quiet --release --target "$target" -p diffused-kernels --example layer
layer=${CARGO_TARGET_DIR:-target}/$target/release/examples/layer

# The counts of a kind's layers: what two runs execute more than one.
counts() {
    local times
    for times in 1 2; do
        qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$1" -plugin "$work/mix.so" "$layer" "$2" "$times" 2>&1
    done | awk 'NR == 1 { split($0, first) } NR == 2 { for (i = 1; i <= NF; i++) printf "%d ", $i - first[i]; print "" }'
}

# Dot products, FMLA and other vector arithmetic are of all instructions, then the first of all vector arithmetic.
echo "| Core | Layers | Million instructions | Dot products | FMLA | Other vector | Vector loads | Vector stores |" \
    "Integer loads, stores | Branches | Integer | Dot products of vector arithmetic |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
[ $# -gt 0 ] || set -- cortex-a76 cortex-a72 cortex-a53
for core; do
    for kind in convolution linear self-attention cross-attention norm; do
        counts "$core" "$kind" | awk -v core="$core" -v kind="$kind" '{
            all = 0
            for (i = 1; i <= NF; i++) all += $i
            printf "| %s | %s | %.0f ", core, kind, all / 1e6
            for (i = 1; i <= 5; i++) printf "| %.1f %% ", 100 * $i / all
            printf "| %.1f %% | %.1f %% | %.1f %% ", 100 * ($6 + $7) / all, 100 * $8 / all, 100 * $9 / all
            printf "| %.1f %% |\n", 100 * $1 / ($1 + $2 + $3)
        }'
    done
done
