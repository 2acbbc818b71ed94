// A chart with heading, caption and a table of its numbers.

const live = new Set();

// draw(width) returns an element; numbers() returns {columns, rows}; holder: attributes of the chart's container.
function chart({ title, caption, draw, numbers: tabulate, holder = {}, controls = null, level = "h4" }) {
  const place = h("div", { class: "plot", ...holder });
  const details = h("details", { class: "numbers" }, h("summary", {}, "Show as table"));
  const captionText = h("figcaption");
  const node = h("figure", {}, title ? h(level, {}, title) : null, controls, place, captionText, details);
  const self = { node, place, title, width: 0 };
  self.redraw = () => {
    if (!self.width) return;
    const drawn = draw(self.width, self);
    // Keep tooltips and guides.
    place.querySelectorAll(":scope > :not(.overlay)").forEach((e) => e.remove());
    place.prepend(drawn);
    captionText.replaceChildren(typeof caption === "function" ? caption() : caption ?? "");
    if (details.open) fill();
  };
  const fill = () => {
    const { columns, rows } = tabulate();
    details.replaceChildren(details.firstChild, table(title ?? holder["aria-label"] ?? "Numbers", columns, rows));
  };
  details.addEventListener("toggle", () => details.open && fill());
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width && width !== self.width) {
      self.width = width;
      self.redraw();
    }
  }).observe(place);
  live.add(self);
  return self;
}

// Redraw charts in the document, and forget the others.
function redrawAll() {
  for (const self of live) self.node.isConnected ? self.redraw() : live.delete(self);
}

const PLOT = { style: { background: "none", fontSize: "12px", overflow: "visible", color: "var(--soft)" } };

function tooltip(holder) {
  const tip = h("div", { class: "tip overlay", hidden: true, "aria-hidden": "true" });
  holder.append(tip);
  return {
    show(x, y, title, rows) {
      tip.replaceChildren(
        h("strong", {}, title),
        ...rows.map(([key, value, swatch]) =>
          h("span", { class: "row" }, swatch ? h("i", { style: `background: ${swatch}` }) : null, h("span", {}, key), h("b", {}, value))
        )
      );
      tip.hidden = false;
      const room = holder.clientWidth;
      const left = x + 14 + tip.offsetWidth > room ? Math.max(0, x - 14 - tip.offsetWidth) : x + 14;
      tip.style.transform = `translate(${left}px, ${Math.max(0, y - tip.offsetHeight / 2)}px)`;
    },
    hide() {
      tip.hidden = true;
    },
  };
}

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };

// Make a chart with a list along its axis navigable by pointer and keyboard, as a slider.
//   items(): the list; at(): the selected index; x(i), i(x): index to pixels and back; describe(i): [title, rows]; choose(i)
function alongList(self, { label, items, at, x, i, describe, choose, cursor = true }) {
  const { place } = self;
  const tip = tooltip(place);
  const guide = h("div", { class: "guide overlay", hidden: true });
  const chosen = h("div", { class: "guide chosen overlay", hidden: true });
  place.append(guide, chosen);
  Object.entries({ tabindex: 0, role: "slider", "aria-label": label, "aria-orientation": "horizontal" }).forEach(([k, v]) => place.setAttribute(k, v));
  const bound = (p) => Math.max(0, Math.min(items().length - 1, p));
  const show = (p, y) => {
    const [title, rows] = describe(p);
    guide.hidden = !cursor;
    guide.style.transform = `translateX(${x(p)}px)`;
    tip.show(x(p), y ?? 40, title, rows);
  };
  const hide = () => {
    guide.hidden = true;
    tip.hide();
  };
  const mark = () => {
    const p = at();
    chosen.hidden = p < 0 || !cursor;
    if (p >= 0) chosen.style.transform = `translateX(${x(p)}px)`;
    place.setAttribute("aria-valuemin", 0);
    place.setAttribute("aria-valuemax", Math.max(0, items().length - 1));
    place.setAttribute("aria-valuenow", Math.max(0, p));
    const [title, rows] = items().length ? describe(Math.max(0, p)) : ["nothing", []];
    place.setAttribute("aria-valuetext", `${title}: ${rows.map(([k, v]) => `${k} ${v}`).join(", ")}`);
  };
  const where = (event) => {
    const box = place.getBoundingClientRect();
    return [bound(Math.round(i(event.clientX - box.left))), event.clientY - box.top];
  };
  place.addEventListener("pointermove", (event) => self.width && items().length && show(...where(event)));
  place.addEventListener("pointerleave", hide);
  place.addEventListener("blur", hide);
  place.addEventListener("click", (event) => items().length && choose(where(event)[0]));
  place.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.key === "Escape") return hide();
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || !items().length) return;
    event.preventDefault();
    const next = bound(Math.max(0, at()) + step);
    choose(next);
    show(next);
  });
  self.mark = mark;
  self.hide = hide;
}
