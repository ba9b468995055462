#!/usr/bin/env bash
# Asks an NVIDIA GPU everything in one run, offline: bring-up, experiments, driver and tensor tests,
# training, benchmarks. Two steps:
#
#   bash scripts/hardware_nv.sh prepare FOLDER     # with a network: what the run needs, < 64 MiB
#   bash scripts/hardware_nv.sh run FOLDER OUT     # on the machine: below ten minutes, reports in OUT
#
# The machine needs Python 3.12 (PYTHON names it) and NVIDIA's kernel driver, nothing else. FOLDER
# holds wheels (NumPy, pyelftools, pytest, hypothesis), NVRTC, the native image of the drivers and
# what PyTorch gives for the op table, so that neither LLVM nor CUDA nor PyTorch is needed there.
# With EMULATE=sm_90 the run rehearses on the boards, which do need LLVM (llvmlite).
set -euo pipefail
cd "$(dirname "$0")/.."
limit_bytes=$((64 << 20))
python=${PYTHON:-python3}

prepare() {
    local folder=$1 wheels work
    mkdir -p "$folder/wheels"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    wheels=(numpy pyelftools pytest pluggy iniconfig packaging pygments hypothesis sortedcontainers
        pytest-xdist execnet)
    local platforms=()
    for platform in manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do
        platforms+=(--platform "$platform")
    done
    local version=${PYTHON_VERSION:-3.12}
    "$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
        --python-version "$version" "${platforms[@]}" -d "$folder/wheels" "${wheels[@]}"
    "$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
        --python-version "$version" "${platforms[@]}" -d "$work" 'nvidia-cuda-nvrtc>=13.0,<13.1'
    "$python" - "$work" "$folder" <<'PYTHON'
import lzma, pathlib, sys, zipfile
work, folder = map(pathlib.Path, sys.argv[1:])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        base = name.rsplit("/", 1)[-1]
        if base.startswith("libnvrtc") and ".alt." not in base:
            (folder / f"{base}.xz").write_bytes(lzma.compress(archive.read(name), preset=6))
PYTHON
    XDG_CACHE_HOME="$folder/cache" PYTHONPATH=. "$python" -c \
        "from drivers.native.image import build, host_arch; build(host_arch())"
    # What PyTorch gives for the op table, as it is too large itself.
    "$python" -c 'import torch' || { echo "PyTorch must be installed here." >&2; return 1; }
    TINYHW_EXPECTED="$folder/expected.npz" TINYHW_FULL=1 "$python" -m pytest -q \
        -p no:cacheprovider test/tinyhw/test_ops.py
    # The digits for train_mnist.py, if they can be had; without them that step fails and says so.
    local data=${XDG_CACHE_HOME:-$HOME/.cache}
    if PYTHONPATH=. "$python" -c "from tinyhw.nn.datasets import mnist; mnist()" >/dev/null 2>&1; then
        tar -C "$data" -cJf "$folder/data.tar.xz" tinyhw/datasets/mnist
    fi
    local size
    size=$(du -sb "$folder" | cut -f1)
    echo "$folder: $((size >> 20)) MiB"
    if ((size >= limit_bytes)); then
        echo "That is more than $((limit_bytes >> 20)) MiB." >&2
        return 1
    fi
}

# run_step SECONDS NAME COMMAND...: goes on whatever the command says, and notes it.
run_step() {
    local seconds=$1 name=$2 status=0 start=$SECONDS
    shift 2
    echo "== $name"
    timeout -k 5 "$seconds" "$@" 2>&1 | tee "$out/$name.txt" || status=$?
    echo "$name: exit $status after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
}

run() {
    local folder out site
    folder=$(realpath "$1")
    out=$2
    mkdir -p "$out"
    out=$(realpath "$out")
    site=$(mktemp -d)
    trap 'rm -rf "$site"' RETURN
    for wheel in "$folder"/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$site"
    done
    mkdir -p "$site/nvidia/cu13/lib"
    "$python" - "$folder" "$site/nvidia/cu13/lib" <<'PYTHON'
import lzma, pathlib, sys
folder, library = map(pathlib.Path, sys.argv[1:])
for packed in folder.glob("lib*.xz"):
    (library / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
PYTHON
    cp -r "$folder/cache" "$site/cache"
    if [[ -e $folder/data.tar.xz ]]; then
        tar -C "$site/cache" -xJf "$folder/data.tar.xz"
    fi
    export PYTHONPATH=$site:$PWD:$PWD/scripts XDG_CACHE_HOME=$site/cache PYTHONUNBUFFERED=1
    : >"$out/summary.txt"
    {
        date -u
        uname -a
        "$python" --version
        cat /proc/driver/nvidia/version || true
        ls -l /dev/nvidia* || true
    } >"$out/machine.txt" 2>&1
    run_step 90 bringup "$python" scripts/bringup_nv.py --largest 256M \
        --json "$out/bringup.json" --html "$out/bringup.html"
    run_step 60 probe "$python" scripts/probe_nv.py --json "$out/probe.json"
    run_step 100 driver_tests "$python" -m pytest -q --maxfail 9 -p no:cacheprovider -k NV \
        test/drivers/test_commands.py test/drivers/test_bound.py test/drivers/test_points.py \
        test/drivers/test_host_memory.py
    run_step 130 op_tests env NV=1 TINYHW_FULL=1 "TINYHW_EXPECTED=$folder/expected.npz" \
        "$python" -m pytest -q -p no:cacheprovider -n 8 test/tinyhw/test_ops.py
    run_step 60 tensor_tests env NV=1 "$python" -m pytest -q --maxfail 20 -p no:cacheprovider \
        -n 8 -k 'not AMD and not LLVM' test/tinyhw --ignore test/tinyhw/test_boards.py \
        --ignore test/tinyhw/test_datasets.py --ignore-glob '*test_onnx*'
    run_step 45 train_mnist env NV=1 "$python" scripts/train_mnist.py
    run_step 80 bench "$python" scripts/bench.py --device NV --libraries tinyhw,torch \
        --seconds 0.3 --only '^(?!emulated|import|first call|new kernel|peak|memory)'
    cat "$out/summary.txt"
}

case ${1-} in
    prepare) [[ $# == 2 ]] && { prepare "$2"; exit; } ;;
    run) [[ $# == 3 ]] && { run "$2" "$3"; exit; } ;;
esac
sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
exit 2
