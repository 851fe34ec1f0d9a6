#!/usr/bin/env bash
# What llvm-mca says of the NEON inner loops: multiply-adds per cycle, against the core's peak. An estimate, from the machine
# code that the compiler makes: no board is measured. The models see no cache misses.
#
#   benches/mca.sh          the table
#   benches/mca.sh --asm    and the loops
#
# Wants llvm-mca 19 (Debian: llvm-19; older ones have no model of the neoverse-n1, the Cortex-A76's twin), rustup's
# aarch64-unknown-linux-gnu target and a linker for it (cross/setup).
set -euo pipefail
cd "$(dirname "$0")/.."

mca=$(command -v llvm-mca-19 || command -v llvm-mca)
target=aarch64-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo rustc --quiet --release --target "$target" -p diffused-kernels --lib -- \
    --emit "asm=$work/kernels.s" -C codegen-units=1 -C debuginfo=0

# Prints one turn of the loop of a function that has the most of an instruction: what lies between a label and the branch
# back to it, or, where the loop is unrolled, between the starts of two blocks of assembly. Of two loops with as
# many it prints the one without conversions from half precision.
loop() {
    awk -v name="$1" -v instruction="$2" '
        function consider() { if (count - converts / 2 > best) { best = count - converts / 2; text = body } }
        function start() { body = ""; count = 0; converts = 0 }
        /^_[A-Za-z0-9_.$]*:/ { here = index($1, name) > 0; label = "" }
        !here { next }
        /^\.LBB[0-9_]*:/ { label = substr($1, 1, length($1) - 1); start(); assembly = 0 }
        /\/\/APP/ { if (assembly) consider(); assembly = 1; start() }
        /^[ \t]*[a-z]/ {
            body = body $0 "\n"
            if ($1 ~ "^(" instruction ")$") count++
            if ($1 ~ /^fcvtl/) converts = 1
            if ($1 ~ /^(b\.|cbn?z|tbn?z)/ && $NF == label) consider()
        }
        END { printf "%s", text }' "$work/kernels.s"
}

# Cycles of one turn of the loop on a core, in the long run.
cycles() {
    "$mca" -mtriple="$target" -mcpu="$2" -iterations=200 -mattr=+dotprod "$1" 2>/dev/null |
        awk '/^Total Cycles:/ { print $3 / 200 }'
}

# One line of the table: name, function, instructions, their multiply-adds each (times 4), core, peak per cycle.
row() {
    local name=$1 function=$2 instruction=$3 macs=$4 core=$5 peak=$6
    loop "$function" "$instruction" > "$work/loop.s"
    [ -s "$work/loop.s" ] || { echo "no loop of $instruction in $function" >&2; return 1; }
    [ "${show:-}" != --asm ] || sed 's/^/        /' "$work/loop.s"
    awk -v name="$name" -v core="$core" -v peak="$peak" -v count="$(grep -cE "^\s*($instruction)\s" "$work/loop.s")" \
        -v macs="$macs" -v cycles="$(cycles "$work/loop.s" "$core")" 'BEGIN {
            rate = count * macs / cycles
            printf "| %-22s | %-11s | %6.2f | %5.1f | %3.0f%% |\n", name, core, rate, peak, 100 * rate / peak
        }'
}

show=${1:-}
echo "| inner loop             | core        | MAC/cycle | peak |   |"
echo "|---|---|---|---|---|"
# Peaks: what the model says of sixteen FMLAs (four lanes), or SDOTs (sixteen), that wait for nothing. SMULL's column shows FMLA's
# peak, which it has to beat to earn its place.
for core in cortex-a53:4 cortex-a55:8 cortex-a72:4 neoverse-n1:8; do
    row "f32 FMLA" neon_tiles3fma fmla 4 "${core%:*}" "${core#*:}"
done
for core in cortex-a53:4 cortex-a55:8 cortex-a72:4 neoverse-n1:8; do
    row "int8 SMULL + SADALP" neon_smull3dot "smull2?|smlal2?" 8 "${core%:*}" "${core#*:}"
done
for core in cortex-a55:16 neoverse-n1:32; do
    row "int8 SDOT" neon_sdot3dot sdot 16 "${core%:*}" "${core#*:}"
done
