#!/usr/bin/env bash
# What a machine with a GPU has to say of the kernels, into the folder $1: the tests of the Triton kernels on it, the
# memory and race checkers once over every kernel, then correctness and timings of every operation at full size.
# It needs this working tree, torch and Triton, pytest for the tests, and nothing of the rest: no installation, no
# network. The words after $1 say which of `tests check bench` are run, all if there are none; QUICK=1 makes the
# benchmark small.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mkdir -p "${1:?a folder for the results}" && cd "$1" && pwd)
shift
home=$(mktemp -d)
ln -s "$root" "$home/codistill"  # the root of the repository is the package
export PYTHONPATH=$home:${PYTHONPATH:-}
status=0
nvidia-smi > "$out/nvidia-smi.txt" 2>&1

run_tests() {
    local many=()
    python3 -c "import xdist" 2> /dev/null && many=(-n "$(nproc)")
    (cd "$root" && CODISTILL_TEST_DEVICE=cuda python3 -m pytest -q -p no:cacheprovider --tb=short "${many[@]}" \
        tests/kernels/interpreted) > "$out/tests.txt" 2>&1 || status=1
    tail -n 30 "$out/tests.txt"
}

# A file of cases at a time, side by side: a checker makes each launch many times slower, and a core is enough for one.
check() {
    command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not installed here"; return; }
    for tool in memcheck racecheck; do
        for name in "$root"/tests/kernels/build/cases_*.py; do
            name=$(basename "$name" .py)
            # Without torch's cache of allocations a byte beyond a tensor is a byte that nobody owns.
            (cd "$home" && PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "${LIMIT:-600}" compute-sanitizer --tool "$tool" \
                --error-exitcode 9 python3 -m codistill.tests.kernels.build.launch "${name#cases_}" \
                > "$out/$tool-${name#cases_}.part" 2>&1; echo "exit status $?" >> "$out/$tool-${name#cases_}.part") &
        done
        wait
        tail -n 25 "$out/$tool"-*.part > "$out/$tool.txt"
        grep -q "exit status [1-9]" "$out/$tool.txt" && status=1
        rm "$out/$tool"-*.part
        grep -E "==>|SUMMARY|cases|exit status" "$out/$tool.txt"
    done
}

bench() {
    local quick=()
    [ -n "${QUICK:-}" ] && quick=(--quick)
    (cd "$home" && python3 -m codistill.kernels.bench --device cuda "${quick[@]}" --csv "$out/kernels.csv" \
        > "$out/kernels.txt" 2>&1) || status=1
    cat "$out/kernels.txt"
}

for part in "${@:-tests check bench}"; do
    for one in $part; do
        case $one in
            tests) run_tests ;;
            check) check ;;
            bench) bench ;;
            *) echo "there is no part $one; expected tests, check or bench" >&2; exit 2 ;;
        esac
    done
done
exit $status
