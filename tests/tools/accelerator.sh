#!/usr/bin/env bash
# Measures everything that waits for an accelerator, at the shapes of the paper's backbones with random weights.
#
#     tests/tools/accelerator.sh [--smoke] [STEP...]
#
# Without steps all of them run, in their order. A command ends within 10 minutes (LIMIT_S): where machines are lent by
# the command, a step that no longer fits is left for the next one, and what is in $OUT already is not measured again.
# Every measurement is in $OUT/results.jsonl as soon as it is made; $OUT/log.txt has what was said beside it. The table
# comes last and is in $OUT/table.txt, too. The exit code is 1 if a step failed, 3 if steps are left, 0 otherwise.
#
#     OUT       where results go, default ./accelerator
#     WEIGHTS   where random weights go, up to 26 GB at a time, default $TMPDIR/vlinstruct_weights; removed after use
#     PYTHON    default python3; it needs this package's dependencies, not the package
#     LIMIT_S   default 570
#
# --smoke takes mini's shapes and small batches: it shows on a CPU that the script runs, and measures nothing.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root:$root/tests" PYTHONUNBUFFERED=1
weights=${WEIGHTS:-${TMPDIR:-/tmp}/vlinstruct_weights} python=${PYTHON:-python3}
deadline=$((SECONDS + ${LIMIT_S:-570}))
out=${OUT:-accelerator}
mkdir -p "$out" "$weights"
results=$out/results.jsonl
touch "$results"

if [ "${1:-}" = --smoke ]; then
    shift
    t5=mini llama=mini-llama t5_large=mini llama_large=mini-llama vlm=tiny
    pictures=2 candidates=3 samples=2 training=(--small) graphs=() options=(--device cpu --runs 2)
else
    t5=flant5-xl llama=vicuna-7b t5_large=flant5-xxl llama_large=vicuna-13b vlm=7b
    pictures=64 candidates=100 samples=16 training=() graphs=(--compile) options=(--dtype bfloat16 --runs 7)
fi

# In the order of their worth: what a short lease leaves out is measured least often.
steps=(
    doctor
    graphs-t5 graphs-llama bench-t5-graphs bench-llama-graphs bench-vlm-graphs
    bench-t5 bench-llama bench-t5-batch bench-vlm bench-vlm-batch
    training training-beside-transformers ranking
    answers-t5 answers-t5-4bit answers-t5-8bit
    answers-llama answers-llama-4bit
    answers-t5-large answers-llama-large
)

shapes() { command=("$python" -m tools.real_shapes "$@"); }
bench() { command=("$python" -m vlinstruct bench --random-weights --json "${options[@]}" --backbone "$@"); }
bench_vlm() { command=("$python" -m bench.vlm_shapes $vlm --json "${options[@]}" "$@"); }
answers() { # NAME LAST [--quantize BITS]; LAST: its weights are needed no longer
    shapes answers "$1" --folder "$weights/$1" "${@:3}"
    [ "$2" = last ] && unneeded=$weights/$1
}

# Sets `command`, and `unneeded` to a folder that is removed behind it. 77.2 % of the tokens of instructions are what
# mini's drafts give.
set_command() {
    unneeded=
    case $1 in
    doctor) command=("$python" -m vlinstruct doctor --backbone mini --offline --json) ;;
    graphs-t5) shapes graphs $t5 ;; # how far what is replayed lies from what is computed
    graphs-llama) shapes graphs $llama ;;
    bench-t5-graphs) bench $t5 --acceptance 0.772 "${graphs[@]}" ;;
    bench-llama-graphs) bench $llama --acceptance 0.772 "${graphs[@]}" ;;
    bench-vlm-graphs) bench_vlm "${graphs[@]}" ;;
    bench-t5) bench $t5 --acceptance 0.772 ;;
    bench-llama) bench $llama --acceptance 0.772 ;;
    bench-t5-batch) bench $t5 --acceptance 0.772 --batch-size $pictures ;;
    bench-vlm) bench_vlm ;; # plain, and every call of algorithm 2 alone, beside ours; with peak memory
    bench-vlm-batch) bench_vlm --batch-size 2 ;;
    training) shapes training $t5 "${training[@]}" ;;
    training-beside-transformers) bench $t5 --training --batch-size $samples ;;
    ranking) bench $t5 --candidates $candidates ;;
    answers-t5) answers $t5 kept ;;
    answers-t5-4bit) answers $t5 kept --quantize 4bit ;;
    answers-t5-8bit) answers $t5 last --quantize 8bit ;;
    answers-llama) answers $llama kept ;;
    answers-llama-4bit) answers $llama last --quantize 4bit ;;
    answers-t5-large) answers $t5_large last ;;
    answers-llama-large) answers $llama_large last ;;
    *)
        echo "error: unknown step $1. Known are ${steps[*]}" >&2
        exit 2
        ;;
    esac
    return 0
}

chosen=("$@")
[ $# -eq 0 ] && chosen=("${steps[@]}")
for step in "${chosen[@]}"; do set_command "$step"; done

failed=0 left=()
for step in "${chosen[@]}"; do
    grep -q "\"step\": \"$step\", \"exit_code\": 0" "$results" && continue
    seconds=$((deadline - SECONDS))
    if [ $seconds -lt 20 ]; then
        left+=("$step")
        continue
    fi
    set_command "$step"
    echo "== $step: ${command[*]}" | tee -a "$out/log.txt" >&2
    began=$SECONDS
    timeout "$seconds" "${command[@]}" 2>>"$out/log.txt" | tee -a "$results" >/dev/null
    code=${PIPESTATUS[0]}
    echo "{\"step\": \"$step\", \"exit_code\": $code, \"seconds\": $((SECONDS - began))}" >>"$results"
    if [ "$code" -ne 0 ]; then
        failed=1
        tail -n 3 "$out/log.txt" >&2
    fi
    [ -n "$unneeded" ] && rm -rf "$unneeded"
done

"$python" -m tools.real_shapes table "$results" | tee "$out/table.txt"
if [ ${#left[@]} -gt 0 ]; then
    echo "left, run again for them: ${left[*]}"
    exit 3
fi
exit $failed
