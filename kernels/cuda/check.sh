#!/usr/bin/env bash
# Compiles every kernel for every architecture that machine code is embedded for, and prints what each takes. No card is needed.
#
#   kernels/cuda/check.sh [TOOLKIT]
#
# TOOLKIT is an installed CUDA toolkit or one that toolkit.sh unpacked: by default CUDA_HOME, else the one of PATH's nvcc. It
# fails where a source does not compile, where two kernels have one name, and where registers are spilled to memory beyond
# what the source's first lines allow, in bytes of stores and loads for a kernel: `// spills at most 64 bytes`; without
# such a line, none.
set -euo pipefail

sources="$(cd "$(dirname "$0")" && pwd)"
if [ $# -ge 1 ]; then
    nvcc="$1/bin/nvcc"
elif [ -n "${CUDA_HOME:-}" ]; then
    nvcc="$CUDA_HOME/bin/nvcc"
else
    nvcc="$(command -v nvcc || echo "$sources/toolkit/bin/nvcc")"
fi
[ -x "$nvcc" ] || { echo "$0: there is no $nvcc; kernels/cuda/toolkit.sh unpacks one" >&2; exit 2; }

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# NAME ARCHITECTURE, one a line. Files named *_sm90.cu are for Hopper alone, as in kernels/build.rs.
jobs() {
    local source name architecture
    for source in "$sources"/*.cu; do
        name="$(basename "$source" .cu)"
        for architecture in sm_80 sm_89 sm_90a; do
            case "$name/$architecture" in
                *_sm90/sm_90a) ;;
                *_sm90/*) continue ;;
            esac
            echo "$name $architecture"
        done
    done
}

compile() {
    local log="$scratch/$1.$2.log"
    "$nvcc" -std=c++17 -arch="$2" -cubin -Xptxas -v -o "$scratch/$1.$2.cubin" "$sources/$1.cu" >"$log" 2>&1 && return
    echo "$1.cu for $2:" >&2
    grep -v "^ptxas info" "$log" >&2
    return 1
}
export -f compile
export nvcc sources scratch
jobs | xargs -P "$(nproc)" -L 1 bash -c 'compile "$0" "$1"' || exit 1

# Lines of ptxas: which function the following speak of, its stack and spills, its registers and shared memory.
jobs | while read -r name architecture; do
    allowed="$(sed -n '1,10s|^// spills at most \([0-9]*\) bytes.*|\1|p' "$sources/$name.cu")"
    awk -v quote="'" -v file="$name.cu" -v architecture="$architecture" -v allowed="${allowed:-0}" '
        /Compiling entry function/ { split($0, quoted, quote); kernel = quoted[2]; spilled = 0; frame = 0; next }
        /bytes spill stores/ {
            for (i = 2; i <= NF; i++) {
                if ($i == "bytes" && $(i + 1) == "stack") frame += $(i - 1)
                if ($i == "bytes" && $(i + 1) == "spill") spilled += $(i - 1)
            }
            next
        }
        /Used [0-9]+ registers/ {
            registers = shared = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^registers/) registers = $(i - 1)
                if ($i == "bytes" && $(i + 1) ~ /^smem/) shared = $(i - 1)
            }
            print file, kernel, architecture, registers, shared, frame, spilled, allowed
        }' "$scratch/$name.$architecture.log"
done >"$scratch/kernels"

# A line for each kernel: registers on each architecture, of the rest the most.
awk '
    {
        id = $1 " " $2
        if (!(id in registers)) order[++kernels] = id
        registers[id] = registers[id] sprintf(" %4d", $4)
        if ($5 > shared[id]) shared[id] = $5
        if ($6 > stack[id]) stack[id] = $6
        if ($7 > spilt[id]) spilt[id] = $7
        if ($7 > $8) { over[id] = "  TOO MANY"; failed = 1 }
        if (($2 in from) && from[$2] != $1) twice[$2] = from[$2] " and " $1
        from[$2] = $1
    }
    END {
        printf "%-16s %-24s %8s %8s %8s  registers on sm_80, sm_89, sm_90a\n", "source", "kernel", "shared B", "stack B", "spills B"
        for (at = 1; at <= kernels; at++) {
            id = order[at]
            split(id, part, " ")
            printf "%-16s %-24s %8d %8d %8d %s%s\n", part[1], part[2], shared[id], stack[id], spilt[id], registers[id], over[id]
        }
        for (name in twice) { printf "%s is in both %s\n", name, twice[name]; failed = 1 }
        if (kernels == 0) print "no kernel was found in what ptxas said"
        exit kernels == 0 || failed
    }' "$scratch/kernels"
