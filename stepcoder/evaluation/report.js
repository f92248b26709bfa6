"use strict";
const model = document.getElementById("pick-model");
const outcome = document.getElementById("pick-outcome");
const count = document.getElementById("picked");
const cards = Array.from(document.querySelectorAll(".sample"));
function pick() {
  let shown = 0;
  for (const card of cards) {
    const fits = (!model.value || card.dataset.model === model.value)
      && (!outcome.value || card.dataset.outcome === outcome.value);
    card.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  count.textContent = `${shown} of ${cards.length} shown`;
}
if (model && outcome) {
  document.getElementById("picker").hidden = false;
  model.addEventListener("change", pick);
  outcome.addEventListener("change", pick);
  pick();
}
