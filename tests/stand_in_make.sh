#!/bin/bash
# In place of make in tests of the grid: makes a run's files at once, after what $PLANS/seed<k> says to do first.
[[ $1 != -q ]] || exit 0
[[ $1 != judge ]] || exec /usr/bin/make "$@"
for word; do [[ $word != *=* ]] || declare "$word"; done
folder=$OUTPUTS/$RUN/$MODEL/$DATASET/seed$SEED
stage() {
  echo "== $1 ($folder)"
  mkdir -p "$folder/$1" && touch "$folder/$1/settings.json"
}
[[ ! -e $PLANS/seed$SEED ]] || source "$PLANS/seed$SEED"
for name in 01_data 02_dedup 03_baselines 04_grpo 05_redistribution 06_attribution 07_judge 11_claims; do
  stage $name
  touch "$folder/$name/done.json" "$folder/$name.ipynb"
done
