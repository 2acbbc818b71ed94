// The page: its sections, the views of a block's channels, and the colour theme.

const VIEWS = {
  curves: ["By class", curvesView],
  spread: ["Within a class", spreadView],
  heat: ["Heat map", heatView],
  histogram: ["Histograms", histogramView],
  squeeze: ["Gate and squeeze", squeezeView],
  hidden: ["Hidden units", hiddenView],
};

function channelsSection() {
  const title = h("h2", { id: "channels-title" });
  const panel = h("div", { role: "tabpanel", id: "view", class: "view", "aria-labelledby": "tab-curves", tabindex: -1 });
  const tabs = Object.entries(VIEWS).map(([key, [label]]) => h("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "view", onclick: () => choose({ view: key }) }, label));
  const keys = Object.keys(VIEWS);
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": "Views of the channels" }, tabs);
  bar.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: keys.indexOf(state.view) - 1, ArrowRight: keys.indexOf(state.view) + 1, Home: 0, End: keys.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + keys.length) % keys.length;
    choose({ view: keys[next] });
    tabs[next].focus();
  });
  const order = h("select", { id: "order", onchange: (event) => choose({ order: event.target.value }) }, Object.entries(ORDERS).map(([key, [label]]) => h("option", { value: key }, label)));
  const which = h("select", { id: "which", onchange: (event) => choose({ all: event.target.value === "all" }) });
  const picker = classPicker();
  const arrange = h("div", { class: "arrange" }, h("label", { for: "which" }, "Channels", which), h("label", { for: "order" }, "Order", order));

  const needs = { curves: [1, 1], spread: [1, 1], squeeze: [1, 0] };
  let parts = [];
  const rebuild = () => {
    const block = here();
    title.textContent = `Channels of ${block.label}`;
    const sampled = block.shown.length < block.channels;
    which.replaceChildren(...(sampled ? [h("option", { value: "some" }, `${block.shown.length} sampled`)] : []), h("option", { value: "all" }, `all ${count(block.channels)}`));
    which.value = state.all || !sampled ? "all" : "some";
    const [classes, arranged] = needs[state.view] ?? [0, 0];
    picker.hidden = !classes;
    arrange.hidden = !arranged;
    keys.forEach((key, i) => {
      tabs[i].setAttribute("aria-selected", key === state.view);
      tabs[i].tabIndex = key === state.view ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${state.view}`);
    parts = VIEWS[state.view][1]();
    panel.replaceChildren(...parts.map((p) => p.node));
  };
  rebuild();
  watchers.push((before) => {
    const changed = before.block !== state.block || before.view !== state.view || (state.view === "spread" && before.classes !== state.classes);
    if (changed) rebuild();
    else parts.forEach((p) => p.redraw());
  });
  return h(
    "section",
    { id: "channels", "aria-labelledby": "channels-title" },
    title,
    bar,
    picker,
    arrange,
    h("div", { class: "workbench" }, panel, channelPanel())
  );
}

function keptText() {
  const { header } = data;
  const { blocks } = data;
  const everything = blocks.every((b) => b.sampled.length === b.channels) && header.kept.length === data.seen.length;
  if (everything) return `This page stores all means by class in ${header.bits} bits, and standard deviations and single images in 8 bits.`;
  const most = d3.max(blocks, (b) => b.sampled.length);
  const text = [`To limit its size, this page stores up to ${most} randomly sampled channels of a block in ${header.bits} bits for ${header.kept.length === data.seen.length ? "all" : count(header.kept.length)} classes;`];
  text.push(header.wide.length ? `the other channels in 8 bits for ${header.wide.length === data.seen.length ? "all" : count(header.wide.length)} classes.` : "of the other channels, figures over all images only.");
  text.push("Figures of each channel over all images are complete. The recording has all data.");
  return text.join(" ");
}

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  const apply = () => {
    document.documentElement.dataset.theme = own ?? (system.matches ? "dark" : "light");
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    redrawAll();
  };
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    own = isDark() ? "light" : "dark";
    apply();
  });
  apply();
}

async function start() {
  const main = document.getElementById("main");
  theme();
  try {
    await load();
    await openSheet();
    state.classes = data.header.examples;
    state.block = data.header.first;
    state.channel = mostSpecific(here());
    const incomplete = aboutNetwork();
    main.replaceChildren(...[incomplete, networkSection(), depthSection(), blockSection(), channelsSection()].filter(Boolean));
    document.getElementById("foot").textContent = keptText();
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    main.replaceChildren(h("p", { class: "problem", role: "alert" }, `Cannot show this page. ${error.message}`));
    throw error;
  }
}

start();
