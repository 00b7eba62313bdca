#!/usr/bin/env bash
# Unpacks a CUDA toolkit (nvcc, ptxas, NVRTC, headers) into a folder, from the vendor's wheels. No driver or card is needed.
#
#   kernels/cuda/toolkit.sh DIR
#
# DIR then has the form of an installed toolkit: CUDA_HOME=DIR, and DIR/lib in LD_LIBRARY_PATH for NVRTC. A folder
# unpacked before by this version of the script is left as it is. About 200 MB are fetched and 500 MB kept.
set -euo pipefail

[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
directory="$1"

# One release for all of them: headers, compiler and libraries of different ones do not fit together.
release="13.0"
wheels=(
    nvidia-cuda-nvcc    # nvcc, ptxas, cudafe++, fatbinary
    nvidia-nvvm         # cicc and libdevice
    nvidia-cuda-crt     # headers that the compiler itself includes
    nvidia-cuda-runtime # cuda.h, bfloat16 and fp8 headers, libcudart
    nvidia-cuda-cccl    # cuda/ptx, cub
    nvidia-cuda-nvrtc   # the compiler as a library
)
stamp="$release ${wheels[*]}"

works() { "$1/bin/nvcc" --version 2>/dev/null | grep -q "release $release,"; }

if [ "$(cat "$directory/.unpacked" 2>/dev/null)" = "$stamp" ] && works "$directory"; then
    exit 0
fi

mkdir -p "$(dirname "$directory")"
scratch="$(mktemp -d "$directory.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT

for wheel in "${wheels[@]}"; do
    python3 -m pip download --quiet --no-deps --disable-pip-version-check \
        --only-binary=:all: --dest "$scratch/wheels" "$wheel==$release.*"
done

# Wheels are zip archives, and unzip is not everywhere. Modes are lost on the way.
python3 - "$scratch" <<'PYTHON'
import pathlib, sys, zipfile

scratch = pathlib.Path(sys.argv[1])
for wheel in sorted(scratch.glob("wheels/*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        # The "alternative" build of NVRTC is as large as all the rest, and nothing looks for it.
        archive.extractall(scratch / "tree", [name for name in archive.namelist() if ".alt.so" not in name])
PYTHON
root="$scratch/tree/nvidia/cu13"
chmod +x "$root"/bin/* "$root"/nvvm/bin/*

# Programs look for libraries and NVRTC's users for its plain name where an installed toolkit has them.
[ -e "$root/lib64" ] || ln -s lib "$root/lib64"
for library in "$root"/lib/lib*.so.*; do
    plain="${library%%.so.*}.so"
    [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
done

works "$root" || { echo "$0: what was unpacked does not run:" >&2; "$root/bin/nvcc" --version >&2; exit 1; }
echo "$stamp" >"$root/.unpacked"
rm -rf "$directory"
mv "$root" "$directory"
