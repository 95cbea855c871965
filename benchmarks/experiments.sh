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

part() {  # part CELLS SCRIPT OPTIONS…, the script's cells being in $root/CELLS
    restore "$1"
    $run "benchmarks/$2.py" "${@:3}"
    keep "$1"
}

macro() {  # macro WHAT KEY=VALUE…
    local what=$1
    shift
    part nas_bench nas_bench_macro "$table" --only "$what" --folder "$folder" --root "$root/nas_bench" --jobs "$jobs" \
        "${@/#/--set=}"
}

wins() {  # wins CELLS DATA OPTIONS…
    part "$1" search_wins "$2" "$root/$1" --jobs "$jobs" "${@:3}"
}

for seeds in 1 2 3 4 5; do wins search_wins "$folder" --budget 1M --seeds $seeds; done
wins search_wins "$folder" --budget 3M --seeds 3 --ways search,uniform
wins search_wins_fashion fashion-mnist --budget 1M --seeds 3 --ways search,uniform
wins search_wins_weights "$folder" --budget 1M --seeds 3 --ways search,search-weights,search-netaug \
    --name search_wins_1M_weights
part two_commands two_commands "$root/two_commands" --seeds 1  # alone, which tells the minutes
part two_commands two_commands "$root/two_commands" --jobs "$jobs"
for lengths in 10 30 90 270; do
    part netaug_curves netaug_curves "$folder" "$root/netaug_curves" --only $lengths --jobs "$jobs"
done
part widening widening "$folder" "$root/widening" --jobs "$jobs"
part anchor anchor "$folder" "$root/anchor"
part methods methods "$folder" "$root/search_wins/1M-search-s0/found.json" --root "$root/methods" --only methods_tiny \
    --jobs "$jobs"
part start start "$root/start" --jobs "$jobs"
part zero_init zero_init "$root/zero_init" --jobs "$jobs"
part designs designs "$folder" "$root/designs" --jobs "$jobs"

if [ -n "$table" ]; then
    tuned=(search.least_epochs=0 sandwich.smallest=false zero_init_residual=false)
    macro ranks train_macs=12e12 search.supernet_share=1 search.finalist_macs=0 search.trials=8 "${tuned[@]}" \
        sandwich.low=6.6e6
    macro search train_macs=24e12 "${tuned[@]}" sandwich.low=5.6e6 sandwich.high=27e6
    macro settings
fi
