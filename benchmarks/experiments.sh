#!/bin/bash
# The long experiments of docs/results, one after the other, each going on where it stopped:
#
#     bash benchmarks/experiments.sh FOLDER ROOT [JOBS [TABLE]]
#
# FOLDER is CIFAR-10 as JPEG files, ROOT a folder outside the checkout, TABLE that of NAS-Bench-Macro (without it, its
# parts are left out). Cells that were finished elsewhere are laid out from docs/results/cells; those finished here are
# added to these files, which are to be committed, after each part.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(realpath "$1") root=$(realpath -m "$2") jobs=${3:-2} table=${4:+$(realpath "$4")} run="${PYTHON:-.venv/bin/python}"
kept=docs/results/cells
renice -n 19 $$ >/dev/null

keep() {  # keep CELLS [--restore]
    $run benchmarks/keep.py "$folder" "$root/$1" "$kept/$1.tar.xz" "${@:2}"
}

restore() {  # restore CELLS
    mkdir -p "$root/$1"
    [ ! -f "$kept/$1.tar.xz" ] || keep "$1" --restore
}

part() {  # part CELLS DATA SCRIPT OPTIONS…
    local cells=$1 data=$2 script=$3
    shift 3
    restore "$cells"
    $run "benchmarks/$script.py" "$data" "$root/$cells" "$@" --jobs "$jobs"
    keep "$cells"
}

macro() {  # macro WHAT KEY=VALUE…
    local what=$1
    shift
    restore nas_bench
    $run benchmarks/nas_bench_macro.py "$table" --only "$what" --folder "$folder" --root "$root/nas_bench" --jobs "$jobs" \
        "${@/#/--set=}"
    keep nas_bench
}

for seeds in 1 2 3 4 5; do part search_wins "$folder" search_wins --budget 1M --seeds $seeds; done
part search_wins "$folder" search_wins --budget 3M --seeds 3 --ways search,uniform
part search_wins_fashion fashion-mnist search_wins --budget 1M --ways search,uniform
part search_wins_weights "$folder" search_wins --budget 1M --seeds 3 --ways search,search-weights,search-netaug \
    --name search_wins_1M_weights
part designs "$folder" designs
for lengths in 10 30 90 270; do part netaug_curves "$folder" netaug_curves --only $lengths; done
part widening "$folder" widening

if [ -n "$table" ]; then
    tuned=(search.least_epochs=0 sandwich.smallest=false zero_init_residual=false)
    macro ranks train_macs=12e12 search.supernet_share=1 search.finalist_macs=0 search.trials=8 "${tuned[@]}" \
        sandwich.low=6.6e6
    macro search train_macs=24e12 "${tuned[@]}" sandwich.low=5.6e6 sandwich.high=27e6
    macro settings
fi
