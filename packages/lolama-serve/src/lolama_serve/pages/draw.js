// Elements, pictures and numbers: what every part of the page is drawn with. Texts become text nodes, never HTML.

export function element(name, settings = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(settings)) {
    if (key === "onclick" || key === "oninput") made[key] = value;
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function picture(name, settings = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function bar(share, width = 12) {
  const made = element("span", { class: "bar" });
  made.style.width = `${Math.max(0, Math.min(1, share)) * width}em`;
  return made;
}

export function shown(text) {
  return text === "" ? "∅" : text.replaceAll("\n", "⏎").replaceAll(" ", "␣");
}

export function percent(share) {
  return share < 0.001 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`;
}

export function toggle(label, pressed, onclick) {
  return element("button", { type: "button", "aria-pressed": String(pressed), onclick }, label);
}

export function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((one) => element("th", { scope: "col" }, one)));
  const body = rows.map((row) => element("tr", {}, ...row.map((one) => element("td", {}, one))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

// Rows of numbers from 0 to 1 as squares, the larger the darker (in a dark page: the brighter).
export function squares(rows, columns, label, settings = {}) {
  const made = element("canvas", { width: columns, height: rows.length, role: "img", "aria-label": label, ...settings });
  const context = made.getContext("2d");
  rows.forEach((row, y) =>
    row.forEach((share, x) => {
      context.fillStyle = `rgba(31, 111, 235, ${Math.sqrt(share)})`;
      context.fillRect(x, y, 1, 1);
    }),
  );
  return made;
}
