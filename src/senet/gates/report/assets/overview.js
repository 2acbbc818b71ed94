// The network: blocks coloured by verdict, a legend, advice, and charts by depth.

function aboutNetwork() {
  const { header } = data;
  const title = document.querySelector("h1").textContent;
  const parts = [
    ...(title.includes(header.network) ? [] : [header.network]),
    header.data,
    plural(header.images, "image"),
    plural(header.classes.length, "class", "classes"),
    plural(data.blocks.length, "SE block"),
  ];
  document.getElementById("about").textContent = parts.join(" · ");
  return header.complete
    ? null
    : h("p", { class: "problem" }, "This recording is incomplete: it stopped before the end of the data.");
}

function networkSection() {
  const tally = d3.rollups(data.blocks, (v) => v.length, (b) => mainVerdict(b));
  return h(
    "section",
    { id: "network", "aria-labelledby": "network-title" },
    h("h2", { id: "network-title" }, "The network"),
    h("p", { class: "lede" }, data.header.summary),
    h("p", { class: "hint" }, `Blocks in execution order, with the distribution of their gates. Select one by click or arrow keys to see its channels below; ${data.blocks.length > 1 ? "the one that matters most is selected first" : "it is selected"}.`),
    strip(),
    legend(tally.map(([verdict]) => verdict)),
    data.header.advice.length
      ? h("div", { class: "advice" }, h("h3", {}, "Advice"), h("ul", {}, data.header.advice.map((a) => h("li", {}, a))))
      : null
  );
}

const mainVerdict = (block) => block.verdict.names[0] ?? "no verdict";

function strip() {
  const list = h("div", { class: "strip", role: "radiogroup", "aria-label": "Blocks of the network" });
  const cells = data.blocks.map((block) =>
    h(
      "button",
      { type: "button", role: "radio", class: "cell", style: inVerdict(mainVerdict(block)), title: block.name, onclick: () => choose({ block: block.index }) },
      h("span", { class: "name" }, block.short),
      sparkline(block),
      h("span", { class: "verdict" }, mainVerdict(block))
    )
  );
  const groups = d3.groups(data.blocks, (b) => b.stage);
  for (const [stage, blocks] of groups)
    list.append(
      h(
        "div",
        { class: "stage", role: "presentation" },
        stage === null ? null : h("span", { class: "stage-name" }, `Stage ${stage}`),
        h("div", { class: "cells", role: "presentation" }, blocks.map((b) => cells[b.index]))
      )
    );
  list.addEventListener("keydown", (event) => {
    const step = { ...STEPS, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(cells.length - 1, state.block + step));
    choose({ block: next });
    cells[next].focus();
  });
  const mark = () =>
    cells.forEach((cell, i) => {
      cell.setAttribute("aria-checked", i === state.block);
      cell.tabIndex = i === state.block ? 0 : -1;
    });
  mark();
  watchers.push(mark);
  return list;
}

// The distribution of a block's gates over the range of the axis.
function sparkline(block) {
  const { total } = block.histogram;
  const [width, height] = [72, 22];
  const most = d3.max(total) || 1;
  const line = d3
    .area()
    .x((d, i) => (total.length > 1 ? (i / (total.length - 1)) * width : 0))
    .y0(height)
    // Square root, so that small bins next to a high peak are visible.
    .y1((d) => height - Math.sqrt(d / most) * (height - 2));
  const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("aria-hidden", "true").attr("class", "spark").attr("preserveAspectRatio", "none");
  svg.append("path").attr("d", line(total));
  return svg.node();
}

function legend(verdicts) {
  return h(
    "dl",
    { class: "legend" },
    verdicts.map((v) =>
      h("div", { style: inVerdict(v) }, h("dt", {}, h("i", { class: "swatch", "aria-hidden": "true" }), v), h("dd", {}, data.header.meanings[v] ?? ""))
    )
  );
}

// Quartiles over channels for each block.
function quartiles(name) {
  return data.blocks.map((b) => {
    const sorted = d3.sort(b.number(name));
    return { block: b, low: d3.quantileSorted(sorted, 0.25), middle: d3.quantileSorted(sorted, 0.5), high: d3.quantileSorted(sorted, 0.75) };
  });
}

function depthSection() {
  const one = data.blocks.length === 1;
  const ablation = ablationByDepth();
  const panels = [
    depthChart("Class specificity", quartiles("eta"), { digits: gate, most: 1, label: "η²", caption: "Share of a gate’s variance over images that is between classes (η²). Near 0, the gate does not depend on the class; near 1, it depends on little else." }),
    depthChart("Variation over images", quartiles("deviation"), { digits: gate, label: "standard deviation", caption: "Standard deviation of a gate over all images. Near 0, a constant could replace the gate." }),
    ablation && depthChart("Ablation", ablation.rows, { digits: (x) => change(x), label: `points of ${ablation.points}`, zero: true, caption: `${ablation.better === "higher" ? "Drop" : "Rise"} of the ${ablation.error}, in percentage points, when a block’s gates are replaced by ${ablation.by}, with its confidence interval. If the interval includes 0, no effect was found.` }),
  ].filter(Boolean);
  return h(
    "section",
    { id: "depth", "aria-labelledby": "depth-title" },
    h("h2", { id: "depth-title" }, "By depth"),
    h("p", { class: "hint" }, one ? "There is one block." : "From the first block to the last. Points are medians over a block’s channels; bars span the quartiles. In the paper’s networks, early gates are shared by all classes, later gates are class-specific, and the last ones have little effect."),
    h("div", { class: `panels panels-${panels.length}` }, panels.map((p) => p.node))
  );
}

function ablationByDepth() {
  const by = ["mean", "one"].find((how) => data.blocks.some((b) => b.verdict.ablations.some((w) => w.by === how)));
  if (!by) return null;
  const rows = data.blocks.map((block) => {
    const [middle, low, high] = block.verdict.ablations.find((w) => w.by === by)?.top1 ?? [null, null, null];
    return { block, low, middle, high };
  });
  const { errors, judged } = data.blocks.flatMap((b) => b.verdict.ablations)[0];
  return { by: by === "mean" ? "their mean" : "1", rows, error: errors[0], points: judged.points, better: judged.better };
}

function depthChart(title, rows, { digits, label, most = 0, zero = false, caption }) {
  const known = rows.filter((r) => Number.isFinite(r.middle));
  let plot;
  const self = chart({
    title,
    level: "h3",
    caption,
    draw: (width) => {
      const top = Math.max(most, d3.max(known, (r) => r.high ?? r.middle) * 1.06 || 0);
      const least = Math.min(0, d3.min(known, (r) => r.low ?? r.middle) ?? 0);
      const long = width / rows.length < 58;
      const step = Math.ceil((16 * rows.length) / width);
      self.place.style.setProperty("--below", long ? "66px" : "30px");
      plot = Plot.plot({
        ...PLOT,
        width,
        height: 250,
        marginLeft: 42,
        marginRight: 12,
        marginTop: 28,
        marginBottom: long ? 66 : 30,
        x: { domain: d3.range(rows.length), type: "point", padding: 0.6, label: null, ticks: d3.range(0, rows.length, step), tickFormat: (i) => short(rows[i].block.short, 10), tickRotate: long ? -60 : 0, tickSize: 0 },
        y: { domain: [least, top || 1], label, ticks: 5, grid: true, nice: zero },
        marks: [
          zero ? Plot.ruleY([0], { stroke: "var(--soft)" }) : null,
          zero ? null : Plot.line(known, { x: (r) => r.block.index, y: "middle", stroke: "var(--faint)", strokeWidth: 1.5 }),
          Plot.ruleX(known.filter((r) => r.low !== null), { x: (r) => r.block.index, y1: "low", y2: "high", stroke: (r) => verdictColour(mainVerdict(r.block)), strokeWidth: zero ? 2 : 5, strokeOpacity: zero ? 0.9 : 0.35, strokeLinecap: "round" }),
          Plot.dot(known, { x: (r) => r.block.index, y: "middle", fill: (r) => verdictColour(mainVerdict(r.block)), stroke: "var(--page)", r: 5 }),
        ],
        color: { type: "identity" },
      });
      queueMicrotask(() => self.mark());
      return plot;
    },
    numbers: () => ({
      columns: ["block", "verdict", zero ? "change" : "median", zero ? "lower bound" : "lower quartile", zero ? "upper bound" : "upper quartile"],
      rows: rows.map((r) => [r.block.label, mainVerdict(r.block), digits(r.middle), digits(r.low), digits(r.high)]),
    }),
  });
  alongList(self, {
    label: `${title} by block`,
    items: () => rows,
    at: () => state.block,
    x: (p) => plot.scale("x").apply(p),
    i: (x) => d3.minIndex(rows, (r, p) => Math.abs(plot.scale("x").apply(p) - x)),
    describe: (p) => [
      rows[p].block.label,
      [[zero ? "change" : "median", digits(rows[p].middle)], [zero ? "interval" : "quartiles", `${digits(rows[p].low)} to ${digits(rows[p].high)}`], ["verdict", mainVerdict(rows[p].block)]],
    ],
    choose: (p) => choose({ block: p }),
  });
  watchers.push(() => self.width && self.mark());
  return self;
}
