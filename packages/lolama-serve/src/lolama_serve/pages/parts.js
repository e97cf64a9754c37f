// The parts of the page, each drawn from what the server told of the text and what is chosen on the page.

import { bar, element, percent, picture, shown, squares, table, toggle } from "./draw.js";
import { sampled } from "./sampling.js";

const place = (id) => document.getElementById(id);

export function drawTokens({ told, chosen }, choose) {
  const buttons = told.texts.map((text, t) => toggle(shown(text), t === chosen.position, () => choose({ position: t })));
  place("tokens").replaceChildren(...buttons);
}

export function drawAttention({ told, chosen, off }, choose) {
  const { position } = chosen;
  const layers = told.layers.map((layer, l) => {
    const heads = layer.attention.map((rows, h) => {
      const label = `layer ${l}, head ${h}`;
      const row = told.texts.map((_, t) => rows[position][t] ?? 0);
      const pressed = l === chosen.layer && h === chosen.head;
      return element(
        "button",
        { type: "button", "aria-pressed": String(pressed), "aria-label": label, title: label, onclick: () => choose({ layer: l, head: h }) },
        squares([row], row.length, `where ${label} looks`),
      );
    });
    const gone = off.layers.has(l) ? " (off)" : "";
    return element("div", { class: "layer" }, element("h3", {}, `Layer ${l}${gone}`), ...heads);
  });
  place("maps").replaceChildren(...layers);
  drawMap(told, chosen, off, choose);
}

function drawMap(told, chosen, off, choose) {
  const { layer, head, position } = chosen;
  const rows = told.layers[layer].attention[head];
  const count = told.texts.length;
  const whole = rows.map((row) => Array.from({ length: count }, (_, t) => row[t] ?? 0));
  const large = squares(whole, count, `all positions of layer ${layer}, head ${head}`, { class: "large" });
  const best = rows[position].map((share, t) => [share, t]).sort((a, b) => b[0] - a[0]).slice(0, 6);
  const seen = table(
    ["looks at", "share", ""],
    best.map(([share, t]) => [element("code", {}, shown(told.texts[t])), percent(share), bar(share)]),
  );
  const name = `${layer},${head}`;
  const without = toggle(`Switch head ${head} of layer ${layer} off`, off.heads.has(name), () => choose({ toggleHead: name }));
  place("map").replaceChildren(
    element("h3", {}, `Layer ${layer}, head ${head}`),
    element("div", { class: "two" }, large, element("div", {}, seen, without)),
  );
}

export function drawRope({ told, chosen }) {
  const { layer, head, position } = chosen;
  const query = told.layers[layer].queries[head][position];
  const pairs = told.angles[position].length;
  const drawn = told.angles[position].map((angle, i) => {
    const [a, b] = [query[i], query[i + query.length / 2]];
    const size = Math.hypot(a, b) || 1;
    const [x, y] = [(a / size) * 24, (b / size) * 24];
    const [u, v] = [x * Math.cos(angle) - y * Math.sin(angle), y * Math.cos(angle) + x * Math.sin(angle)];
    const left = (i % 8) * 70 + 35;
    const top = Math.floor(i / 8) * 84 + 32;
    return picture(
      "g",
      { transform: `translate(${left} ${top})` },
      picture("circle", { r: 26, fill: "none", stroke: "currentColor", "stroke-opacity": 0.25 }),
      picture("line", { x2: x, y2: y, stroke: "currentColor", "stroke-opacity": 0.45, "stroke-width": 2 }),
      picture("line", { x2: u, y2: v, stroke: "#1f6feb", "stroke-width": 3 }),
      picture("text", { y: 42, "text-anchor": "middle" }, `${((angle * 180) / Math.PI).toFixed(0)}°`),
    );
  });
  const height = Math.ceil(pairs / 8) * 84;
  place("rope").replaceChildren(
    element("p", {}, `The query of layer ${layer}, head ${head} at position ${position}: gray before, blue behind the turn.`),
    picture("svg", { viewBox: `0 0 560 ${height}`, width: 560, height, role: "img", "aria-label": "pairs of a query, turned" }, ...drawn),
  );
}

export function drawHeads({ told, chosen }) {
  const group = told.heads / told.key_heads;
  const heads = Array.from({ length: told.heads }, (_, h) => {
    const key = Math.floor(h / group);
    const sizes = told.layers[chosen.layer].head_sizes;
    const most = Math.max(...sizes.map((row) => row[chosen.position]));
    const size = sizes[h][chosen.position];
    return [`query head ${h}`, `keys and values ${key}`, size.toFixed(2), bar(size / most)];
  });
  place("heads").replaceChildren(
    element("p", {}, `${told.heads} query heads share ${told.key_heads} heads of keys and values. Size is the length of what a head of layer ${chosen.layer} adds to the residual stream.`),
    table(["head", "reads", "size", ""], heads),
  );
}

export function drawNetwork({ told, chosen, off }, choose) {
  const { layer, position } = chosen;
  const found = told.layers[layer].neurons[position];
  if (!found.length) {
    place("network").replaceChildren(element("p", {}, "This layer is a mixture of experts."));
    return;
  }
  const most = Math.abs(found[0].value) || 1;
  const rows = found.map(({ number, gate, value }) => {
    const name = `${layer},${number}`;
    return [String(number), gate.toFixed(3), value.toFixed(3), bar(Math.abs(value) / most), toggle("off", off.neurons.has(name), () => choose({ toggleNeuron: name }))];
  });
  place("network").replaceChildren(
    element("p", {}, `${told.neurons.toLocaleString("en")} neurons in each layer; these are of layer ${layer}.`),
    table(["neuron", "gate", "value", "", ""], rows),
  );
}

export function drawLens({ told, chosen }) {
  const rows = told.layers.map((layer, l) => [
    `${l}`,
    ...layer.predictions[chosen.position].slice(0, 4).map((one) => element("span", {}, element("code", {}, shown(one.text)), ` ${percent(one.probability)}`)),
  ]);
  place("lens").replaceChildren(table(["layer", "1st", "2nd", "3rd", "4th"], rows));
}

export function drawCache({ told, chosen }) {
  const count = chosen.position + 1;
  const cells = told.texts.map((text, t) =>
    picture(
      "g",
      { transform: `translate(${t * 26} 0)` },
      ...told.layers.map((_, l) => picture("rect", { x: 2, y: l * 12 + 2, width: 22, height: 10, fill: t < count ? "#1f6feb" : "none", stroke: "currentColor", "stroke-opacity": 0.3 })),
    ),
  );
  const width = told.texts.length * 26;
  const height = told.layers.length * 12 + 4;
  const bytes = (count * told.cache_bytes).toLocaleString("en");
  place("cache").replaceChildren(
    element("p", {}, `Up to the chosen token it holds keys and values of ${count} positions in ${told.layers.length} layers: ${bytes} bytes, ${told.cache_bytes.toLocaleString("en")} for each position.`),
    element("div", { class: "scroll" }, picture("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${count} positions are in the cache` }, ...cells)),
  );
}

const SLIDERS = [
  ["temperature", "Temperature", 0.1, 2, 0.05],
  ["topK", "Top-k (0 is off)", 0, 50, 1],
  ["topP", "Top-p", 0.05, 1, 0.05],
  ["minP", "Min-p", 0, 0.5, 0.01],
];

export function drawNext(state, change) {
  const { told, sampling } = state;
  const area = place("next");
  const drawn = element("div", { id: "drawn" });
  const fill = () => {
    const shares = sampled(told.logits.map(([, logit]) => logit), sampling);
    const before = sampled(told.logits.map(([, logit]) => logit), { temperature: 1, topK: 0, topP: 1, minP: 0 });
    const left = shares.filter((share) => share > 0).length;
    const rows = shares.slice(0, 12).map((share, n) => [element("code", {}, shown(told.candidates[n])), percent(before[n]), share > 0 ? percent(share) : "never", bar(share)]);
    drawn.replaceChildren(element("p", {}, `${left.toLocaleString("en")} tokens can come.`), table(["token", "model", "sampled", ""], rows));
  };
  const sliders = SLIDERS.map(([key, label, min, max, step]) => {
    const number = element("output", {}, String(sampling[key]));
    const input = element("input", { type: "range", min, max, step, value: sampling[key], "data-setting": key, oninput: () => {
      change(key, Number(input.value));
      number.textContent = input.value;
      fill();
    } });
    return element("label", {}, element("span", {}, `${label}: `, number), input);
  });
  fill();
  area.replaceChildren(element("div", { class: "sliders" }, ...sliders), drawn);
}

export function drawOff({ told, off, story }, choose) {
  const layers = told.layers.map((_, l) => toggle(`layer ${l}`, off.layers.has(l), () => choose({ toggleLayer: l })));
  const parts = [...off.heads].map((one) => ["Head", one, "toggleHead"]).concat([...off.neurons].map((one) => ["Neuron", one, "toggleNeuron"]));
  const listed = parts.map(([kind, name, action]) => toggle(`${kind} ${name.replace(",", "/")}`, true, () => choose({ [action]: name })));
  place("off").replaceChildren(element("div", { class: "tokens" }, ...layers, ...listed));
  const column = (title, text) => element("div", {}, element("h3", {}, title), element("p", {}, text));
  place("story").replaceChildren(
    element("div", { class: "two", "aria-live": "polite" }, column("With all parts", story.whole), column("Without them", story.without)),
  );
}

export function drawCode(sources) {
  for (const area of document.querySelectorAll("[data-code]")) {
    const source = sources[area.dataset.code];
    const lines = element("pre", { tabindex: 0 }, element("code", {}, source ?? ""));
    area.replaceChildren(element("details", {}, element("summary", {}, `The lines of reference.py: ${area.dataset.code}`), lines));
  }
}
