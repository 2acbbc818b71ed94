// Elements and text. Untrusted names only become text nodes and attribute values.

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") element.style.cssText = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

const MINUS = "\u2212";
const signed = (text) => text.replace("-", MINUS);
// Three decimals, or scientific notation if they would all be 0.
function gate(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  const size = Math.abs(x);
  return signed(size === 0 ? "0" : size < 0.0005 ? d3.format(".1e")(x) : size < 100 ? d3.format(".3f")(x) : d3.format(",.3~s")(x));
}
const count = (x) => d3.format(",")(x);
const change = (x, digits = 2) =>
  x === null || x === undefined ? "–" : signed((x > 0 ? "+" : "") + d3.format(`.${digits}f`)(x)).replace(/^\u2212(0\.?0*)$/, "$1");
const share = (x) => (x > 0 && x < 0.001 ? "< 0.1 %" : x < 1 && x > 0.999 ? "> 99.9 %" : d3.format(".1f")(100 * x) + " %");
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
const short = (text, length = 28) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
const className = (c) => data.header.classes[c] ?? `class ${c}`;
const slug = (verdict) => "v-" + verdict.toLowerCase().replace(/[^a-z]+/g, "-");
// The colour of a verdict, with a fallback for unknown verdicts.
const verdictColour = (verdict) => `var(--${slug(verdict)}, var(--v-other))`;
const inVerdict = (verdict) => `--v: ${verdictColour(verdict)}`;
const words = (key) => key.replace(/_/g, " ");

// A colour of the style sheet, for canvases.
function colour(name) {
  const probe = h("span", { style: `color: var(${name}); display: none` });
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
const isDark = () => document.documentElement.dataset.theme === "dark";

function table(caption, columns, rows) {
  const shown = rows.slice(0, 2500);
  return h(
    "div",
    { class: "table", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col" }, c)))),
      h(
        "tbody",
        {},
        shown.map((row) =>
          h("tr", {}, row.map((cell, i) => (i === 0 ? h("th", { scope: "row" }, String(cell)) : h("td", {}, String(cell)))))
        )
      )
    ),
    rows.length > shown.length ? h("p", { class: "note" }, `The first ${count(shown.length)} of ${count(rows.length)} rows.`) : null
  );
}
