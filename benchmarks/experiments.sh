#!/bin/bash
# The long experiments of docs/results, one after the other, each going on where it stopped:
#
#     bash benchmarks/experiments.sh FOLDER ROOT [JOBS]
#
# FOLDER is CIFAR-10 as JPEG files, ROOT a folder outside the checkout. Cells that were finished elsewhere are laid out from
# docs/results/cells; those finished here are added to these files, which are to be committed, after each part.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(realpath "$1") root=$(realpath -m "$2") jobs=${3:-2} run="${PYTHON:-.venv/bin/python}"
kept=docs/results/cells
renice -n 19 $$ >/dev/null

part() {  # part CELLS DATA SCRIPT OPTIONS…
    local cells=$1 file=$kept/$1.tar.xz data=$2 script=$3
    shift 3
    mkdir -p "$root/$cells"
    [ -f "$file" ] && $run benchmarks/keep.py "$folder" "$root/$cells" "$file" --restore
    $run "benchmarks/$script.py" "$data" "$root/$cells" "$@" --jobs "$jobs"
    $run benchmarks/keep.py "$folder" "$root/$cells" "$file"
}

for seeds in 1 2 3 4 5; do part search_wins "$folder" search_wins --budget 1M --seeds $seeds; done
part search_wins "$folder" search_wins --budget 3M --seeds 3 --ways search,uniform
part search_wins_fashion fashion-mnist search_wins --budget 1M --ways search,uniform
part search_wins_weights "$folder" search_wins --budget 1M --seeds 3 --ways search,search-weights,search-netaug \
    --name search_wins_1M_weights
part designs "$folder" designs
for lengths in 10 30 90 270; do part netaug_curves "$folder" netaug_curves --only $lengths; done
part widening "$folder" widening
