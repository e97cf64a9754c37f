// The page that shows a model at work: asks the server, keeps what is chosen, and has every part drawn.

import { drawAttention, drawCache, drawCode, drawHeads, drawLens, drawNetwork, drawNext, drawOff, drawRope, drawTokens } from "./parts.js";

const state = {
  text: "",
  told: null,
  chosen: { position: 0, layer: 0, head: 0 },
  off: { layers: new Set(), heads: new Set(), neurons: new Set() },
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
  story: { whole: "", without: "" },
};

async function ask(path, body) {
  const answer = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told;
}

function partsOff() {
  const pairs = (names) => [...names].map((name) => name.split(",").map(Number));
  return { layers: [...state.off.layers], heads: pairs(state.off.heads), neurons: pairs(state.off.neurons) };
}

// Asks anew, and draws all; `again` keeps the chosen token.
async function explain(again) {
  const problem = document.getElementById("problem");
  try {
    const off = partsOff();
    const [told, whole, without] = await Promise.all([
      ask("/lolama/explain", { text: state.text, off }),
      ask("/lolama/continue", { text: state.text }),
      ask("/lolama/continue", { text: state.text, off }),
    ]);
    state.told = told;
    state.story = { whole: state.text + whole.text, without: state.text + without.text };
    const last = told.texts.length - 1;
    state.chosen.position = again ? Math.min(state.chosen.position, last) : last;
    state.chosen.layer = Math.min(state.chosen.layer, told.layers.length - 1);
    problem.textContent = "";
    document.getElementById("told").hidden = false;
    draw();
  } catch (error) {
    problem.textContent = error.message;
  }
}

function flip(set, name) {
  if (!set.delete(name)) set.add(name);
}

function choose({ toggleLayer, toggleHead, toggleNeuron, ...chosen }) {
  Object.assign(state.chosen, chosen);
  if (toggleLayer === undefined && toggleHead === undefined && toggleNeuron === undefined) {
    draw();
    return;
  }
  if (toggleLayer !== undefined) flip(state.off.layers, toggleLayer);
  if (toggleHead !== undefined) flip(state.off.heads, toggleHead);
  if (toggleNeuron !== undefined) flip(state.off.neurons, toggleNeuron);
  explain(true);
}

function draw() {
  const focused = document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent;
  drawTokens(state, choose);
  drawAttention(state, choose);
  drawRope(state);
  drawHeads(state);
  drawNetwork(state, choose);
  drawLens(state);
  drawCache(state);
  drawNext(state, (key, value) => { state.sampling[key] = value; });
  drawOff(state, choose);
  if (focused) {
    // What was pressed was drawn anew; whoever uses a keyboard goes on from there.
    const same = [...document.querySelectorAll("#told button")].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === focused);
    same?.focus();
  }
}

document.getElementById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  state.text = document.getElementById("text").value;
  explain(false);
});

drawCode(await ask("/lolama/reference"));
state.text = document.getElementById("text").value;
await explain(false);
