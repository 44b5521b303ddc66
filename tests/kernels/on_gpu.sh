#!/usr/bin/env bash
# What a machine with a GPU has to say of the kernels, into the folder $1: correctness and timings of every
# operation (the benchmark checks against float64 before it times), the memory and race checkers once over each.
# It needs this working tree, torch and Triton, and nothing of the rest: no installation, no network.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mkdir -p "${1:?a folder for the results}" && cd "$1" && pwd)
home=$(mktemp -d)
ln -s "$root" "$home/codistill"  # the root of the repository is the package
export PYTHONPATH=$home
cd "$home"
status=0
nvidia-smi > "$out/nvidia-smi.txt" 2>&1
python -m codistill.kernels.bench --device cuda --csv "$out/kernels.csv" > "$out/kernels.txt" 2>&1 || status=1
for tool in memcheck racecheck; do
    if command -v compute-sanitizer > /dev/null; then
        compute-sanitizer --tool "$tool" --error-exitcode 9 \
            python -m codistill.kernels.bench --device cuda --quick > "$out/$tool.txt" 2>&1 || status=1
    else
        echo "compute-sanitizer is not installed here" > "$out/$tool.txt"
    fi
done
tail -n 40 "$out/kernels.txt"
exit $status
