// Histograms of gates, gates against squeezes, and hidden units.

function histogramView() {
  const block = here();
  const { edges, total, group, highest } = block.histogram;
  const shares = block.open("histograms", block.histogram.channels);
  const bins = block.histogram.channels.shape[1];
  const sum = d3.sum(total) || 1;
  const ofBlock = total.map((n, i) => ({ low: edges[i], high: edges[i + 1], part: n / sum }));
  const ofChannel = () =>
    d3.range(bins).map((i) => ({ low: edges[i * group], high: edges[Math.min(edges.length - 1, (i + 1) * group)], part: (shares[state.channel * bins + i] / 255) * highest[state.channel] }));
  const draw = (rows, fill, mean) => (width) =>
    Plot.plot({
      ...PLOT,
      width,
      height: 210,
      marginLeft: 44,
      marginBottom: 42,
      x: { labelOffset: 36, domain: [edges[0], edges[edges.length - 1]], label: "gate", labelAnchor: "center", labelArrow: "none", ticks: Math.max(3, width / 80) },
      y: { label: null, tickFormat: "~%", ticks: 4, grid: true, domain: [0, d3.max(rows(), (r) => r.part) || 1] },
      marks: [
        Plot.rectY(rows(), { x1: "low", x2: "high", y: "part", fill, insetLeft: 0.5, insetRight: 0.5, title: (r) => `${gate(r.low)} to ${gate(r.high)}: ${share(r.part)}`, tip: { fill: "var(--raised)", stroke: "var(--line)" } }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleX([mean()], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
      ],
    });
  const table_ = (rows) => () => ({ columns: ["from", "to", "share"], rows: rows().map((r) => [gate(r.low), gate(r.high), share(r.part)]) });
  const every = block.squeeze === "none" ? "images and positions" : "images";
  return [
    chart({
      title: `All channels of ${block.label}`,
      holder: { role: "img", "aria-label": `Histogram of all gates of ${block.label}; the table has its numbers` },
      caption: `Distribution of gates over all channels and ${every}. Dashed: mean.`,
      draw: draw(() => ofBlock, "var(--bar)", () => d3.mean(block.number("mean"))),
      numbers: table_(() => ofBlock),
    }),
    chart({
      title: "The selected channel",
      holder: { role: "img", "aria-label": "Histogram of the gates of the selected channel; the table has its numbers" },
      caption: () => `Channel ${state.channel}, over all ${every}${group > 1 ? ` (${total.length} recorded bins merged to ${bins})` : ""}. Heights are stored to 1/255 of the highest. Dashed: mean.`,
      draw: (width) => draw(ofChannel, "var(--accent)", () => block.number("mean")[state.channel])(width),
      numbers: table_(ofChannel),
    }),
  ];
}

function squeezeView() {
  const block = here();
  const of = (name) => (c) => block.number(name)[c];
  let plot;
  const overall = chart({
    title: "Mean gate against mean squeeze, one point per channel",
    caption: "All channels of the block. A positive slope: channels that are strong in the input pass.",
    draw: (width) => {
      plot = scatter(width, block.all.map((c) => ({ x: of("squeeze")(c), y: of("mean")(c), chosen: c === state.channel })), "mean squeeze", "mean gate");
      queueMicrotask(() => overall.mark());
      return plot;
    },
    numbers: () => ({ columns: ["channel", "mean squeeze", "mean gate"], rows: block.all.map((c) => [c, gate(of("squeeze")(c)), gate(of("mean")(c))]) }),
  });
  const bySqueeze = d3.sort(block.all, of("squeeze"));
  let pointer = null;
  overall.place.addEventListener("pointermove", (event) => (pointer = event), true);
  alongList(overall, {
    label: "Channels, by mean squeeze",
    cursor: false,
    items: () => bySqueeze,
    at: () => bySqueeze.indexOf(state.channel),
    x: (p) => plot.scale("x").apply(of("squeeze")(bySqueeze[p])),
    i: (x) => {
      const y = pointer.clientY - overall.place.getBoundingClientRect().top;
      return d3.minIndex(bySqueeze, (c) => Math.hypot(plot.scale("x").apply(of("squeeze")(c)) - x, plot.scale("y").apply(of("mean")(c)) - y));
    },
    describe: (p) => [`channel ${bySqueeze[p]}`, [["mean squeeze", gate(of("squeeze")(bySqueeze[p]))], ["mean gate", gate(of("mean")(bySqueeze[p]))], ["η²", gate(of("eta")(bySqueeze[p]))]]],
    choose: (p) => choose({ channel: bySqueeze[p] }),
  });
  return [overall, recordedScatter(block)];
}

function recordedScatter(block) {
  const { labels, indices } = data.header.sample;
  if (!labels.length) return emptyView("This recording has no sampled images.");
  const rows = () => {
    const row = block.sampledAt.get(state.channel);
    if (row === undefined) return [];
    const gates = block.open("recorded gates", block.recorded.gates);
    const squeezes = block.open("recorded squeezes", block.recorded.squeezes);
    return labels.map((label, s) => ({ x: squeezes[row * labels.length + s], y: gates[row * labels.length + s], label, image: indices[s] }));
  };
  const jump = h("button", { type: "button", class: "quiet", onclick: () => choose({ channel: d3.least(block.sampled, (c) => Math.abs(c - state.channel)) }) }, "Select the nearest stored channel");
  return chart({
    title: "The selected channel, one point per sampled image",
    holder: { role: "img", "aria-label": "Scatter of gate against squeeze of the selected channel over the sampled images; the table has its numbers" },
    caption: () => {
      const points = rows();
      if (!points.length) return "";
      const r = correlation(points);
      return `Channel ${state.channel}, ${plural(points.length, "image")} sampled at random${r === null ? "" : `; correlation ${change(r, 2)}`}. Selected classes are coloured. Values are stored in 8 bits.`;
    },
    draw: (width) => {
      const points = rows();
      if (!points.length) return h("div", { class: "empty" }, h("p", {}, `This page stores the gates of single images for ${block.sampled.length} channels; channel ${state.channel} is not one of them.`), jump);
      return scatter(
        width,
        points.map((d) => ({ ...d, fill: state.classes.includes(d.label) ? classColour(d.label) : null, title: `${className(d.label)}, image ${d.image}\nsqueeze ${gate(d.x)}, gate ${gate(d.y)}` })),
        "squeeze",
        "gate",
        true
      );
    },
    numbers: () => ({ columns: ["image", "class", "squeeze", "gate"], rows: rows().map((d) => [d.image, className(d.label), gate(d.x), gate(d.y)]) }),
  });
}

function scatter(width, points, x, y, tip = false) {
  const plain = points.filter((d) => !d.fill && !d.chosen);
  const marked = points.filter((d) => d.fill || d.chosen);
  const dot = (rows, options) => Plot.dot(rows, { x: "x", y: "y", ...options });
  return Plot.plot({
    ...PLOT,
    width,
    height: 300,
    marginLeft: 48,
    marginBottom: 42,
    marginTop: 24,
    x: { labelOffset: 36, label: x, labelAnchor: "center", labelArrow: "none", ticks: Math.max(3, width / 90), grid: true, nice: true },
    y: { labelOffset: 40, label: y, labelArrow: "none", ticks: 5, grid: true, nice: true },
    marks: [
      dot(plain, { fill: "var(--bar)", fillOpacity: points.length > 600 ? 0.4 : 0.6, r: points.length > 600 ? 2 : 3 }),
      dot(marked, { fill: (d) => d.fill ?? "var(--accent)", stroke: "var(--page)", r: 5 }),
      tip ? Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "title", fill: "var(--raised)", stroke: "var(--line)" })) : null,
    ],
    color: { type: "identity" },
  });
}

function correlation(points) {
  const [mx, my] = [d3.mean(points, (d) => d.x), d3.mean(points, (d) => d.y)];
  const product = (f, g) => d3.sum(points, (d) => f(d) * g(d));
  const [x, y] = [(d) => d.x - mx, (d) => d.y - my];
  const scale = Math.sqrt(product(x, x) * product(y, y));
  return scale > 0 ? product(x, y) / scale : null;
}

function hiddenView() {
  const block = here();
  if (!block.hidden) return [emptyView("The excitation of this block has one layer and no hidden units.")];
  const of = (name) => block.open("hidden " + name, block.hidden[name]);
  const kind = (u) => (of("weight")[u] === 0 ? "not read" : of("on")[u] === 0 ? "never active" : of("on")[u] === 1 ? "always active" : "active for some");
  const colours = { "active for some": "var(--accent)", "always active": "var(--c1)", "never active": "var(--v-stuck)", "not read": "var(--v-constant)" };
  const units = d3.sort(d3.range(of("on").length), (u) => -of("on")[u]);
  const tally = d3.rollups(units, (v) => v.length, kind);
  const bars = (name, title, caption, options) => {
    let plot;
    const self = chart({
      title,
      caption,
      draw: (width) => {
        plot = Plot.plot({
          ...PLOT,
          width,
          height: 200,
          marginLeft: 44,
          marginBottom: 26,
          x: { type: "band", domain: d3.range(units.length), padding: units.length > 80 ? 0 : 0.15, axis: null },
          y: { label: null, grid: true, ticks: 4, zero: true, ...options },
          marks: [Plot.barY(units, { x: (u, i) => i, y: (u) => of(name)[u], fill: (u) => colours[kind(u)] }), Plot.ruleY([0], { stroke: "var(--line)" })],
          color: { type: "identity" },
        });
        queueMicrotask(() => self.mark());
        return plot;
      },
      numbers: () => ({ columns: ["unit", "state", "active for", "mean output", "standard deviation", "weight norm"], rows: units.map((u) => [u, kind(u), share(of("on")[u]), gate(of("mean")[u]), gate(of("deviation")[u]), gate(of("weight")[u])]) }),
    });
    let at = 0;
    alongList(self, {
      label: title,
      cursor: false,
      items: () => units,
      at: () => at,
      x: (p) => plot.scale("x").apply(p) + plot.scale("x").bandwidth / 2,
      i: (x) => Math.floor(((x - 44) / (self.width - 64)) * units.length),
      describe: (p) => [`unit ${units[p]}`, [["state", kind(units[p])], ["active for", share(of("on")[units[p]])], ["mean output", gate(of("mean")[units[p]])], ["weight norm", gate(of("weight")[units[p]])]]],
      choose: (p) => {
        at = p;
        self.mark();
      },
    });
    return self;
  };
  const key = h("p", { class: "key" }, tally.map(([k, n]) => h("span", {}, h("i", { class: "swatch", style: `background: ${colours[k]}`, "aria-hidden": "true" }), `${n} ${k}`)));
  const relu = block.activation === "ReLU";
  return [
    { node: key, redraw() {} },
    bars("on", `Share of inputs above 0${relu ? ": the unit is active" : ""}`, "One bar per hidden unit over all images, in descending order.", { domain: [0, 1], tickFormat: "~%" }),
    bars("weight", "Weight norm", "Norm of a unit’s column in the second layer’s weight, in the same order. 0: no gate reads the unit.", {}),
  ];
}
