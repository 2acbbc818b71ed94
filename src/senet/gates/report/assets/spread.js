// Histograms of gates, gates against squeezes, hidden units.

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
    picture({
      title: `All channels of ${block.label}`,
      holder: { role: "img", "aria-label": `Histogram of all gates of ${block.label}; the table has its numbers` },
      caption: `How often a gate had which value, over all channels and ${every}. Dashed: the mean.`,
      draw: draw(() => ofBlock, "var(--bar)", () => d3.mean(block.number("mean"))),
      numbers: table_(() => ofBlock),
    }),
    picture({
      title: "The chosen channel",
      holder: { role: "img", "aria-label": "Histogram of the gates of the chosen channel; the table has its numbers" },
      caption: () => `Channel ${state.channel}, over all ${every}${group > 1 ? `, in ${bins} bins of the ${total.length} that were recorded` : ""}. Heights are kept to 1/255 of the highest. Dashed: the mean.`,
      draw: (width) => draw(ofChannel, "var(--accent)", () => block.number("mean")[state.channel])(width),
      numbers: table_(ofChannel),
    }),
  ];
}

function squeezeView() {
  const block = here();
  const of = (name) => (c) => block.number(name)[c];
  let plot;
  const overall = picture({
    title: "Mean gate against mean squeeze, a point for each channel",
    caption: "All channels of the block. A rising cloud: channels that are strong in the input are let through.",
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
  if (!labels.length) return emptyView("No image was recorded one by one, so there is nothing to plot image by image.");
  const rows = () => {
    const row = block.sampledAt.get(state.channel);
    if (row === undefined) return [];
    const gates = block.open("recorded gates", block.recorded.gates);
    const squeezes = block.open("recorded squeezes", block.recorded.squeezes);
    return labels.map((label, s) => ({ x: squeezes[row * labels.length + s], y: gates[row * labels.length + s], label, image: indices[s] }));
  };
  const jump = h("button", { type: "button", class: "quiet", onclick: () => choose({ channel: d3.least(block.sampled, (c) => Math.abs(c - state.channel)) }) }, "Choose the nearest channel that is kept");
  return picture({
    title: "The chosen channel, a point for each recorded image",
    holder: { role: "img", "aria-label": "Scatter of gate against squeeze of the chosen channel over the recorded images; the table has its numbers" },
    caption: () => {
      const points = rows();
      if (!points.length) return "";
      const r = correlation(points);
      return `Channel ${state.channel}, ${plural(points.length, "image")} that were chosen at random${r === null ? "" : `; correlation ${change(r, 2)}`}. Chosen classes are coloured. Values are kept in 8 bits.`;
    },
    draw: (width) => {
      const points = rows();
      if (!points.length) return h("div", { class: "empty" }, h("p", {}, `Channel ${state.channel} is not among the ${block.sampled.length} of which the gates of single images are kept in this page.`), jump);
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
  if (!block.hidden) return [emptyView("The excitation of this block has one layer: there are no hidden units.")];
  const of = (name) => block.open("hidden " + name, block.hidden[name]);
  const kind = (u) => (of("weight")[u] === 0 ? "nothing reads it" : of("on")[u] === 0 ? "never on" : of("on")[u] === 1 ? "always on" : "on for some");
  const colours = { "on for some": "var(--accent)", "always on": "var(--c1)", "never on": "var(--v-dead)", "nothing reads it": "var(--v-constant)" };
  const units = d3.sort(d3.range(of("on").length), (u) => -of("on")[u]);
  const tally = d3.rollups(units, (v) => v.length, kind);
  const bars = (name, title, caption, options) => {
    let plot;
    const self = picture({
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
      numbers: () => ({ columns: ["unit", "state", "on for", "mean output", "deviation", "length of its weights"], rows: units.map((u) => [u, kind(u), share(of("on")[u]), gate(of("mean")[u]), gate(of("deviation")[u]), gate(of("weight")[u])]) }),
    });
    let at = 0;
    alongList(self, {
      label: title,
      cursor: false,
      items: () => units,
      at: () => at,
      x: (p) => plot.scale("x").apply(p) + plot.scale("x").bandwidth / 2,
      i: (x) => Math.floor(((x - 44) / (self.width - 64)) * units.length),
      describe: (p) => [`unit ${units[p]}`, [["state", kind(units[p])], ["on for", share(of("on")[units[p]])], ["mean output", gate(of("mean")[units[p]])], ["length of its weights", gate(of("weight")[units[p]])]]],
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
    bars("on", `How often the input of a unit is above 0${relu ? ": the unit is on" : ""}`, "A bar for each hidden unit, the busiest first, over all images.", { domain: [0, 1], tickFormat: "~%" }),
    bars("weight", "How strongly a unit is read", "The length of its column in the second layer’s weights, in the same order. 0: nothing reads it.", {}),
  ];
}
