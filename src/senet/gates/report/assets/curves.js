// The paper's figures 6 and 7: mean gates by channel for selected classes, and their standard deviation within a class.

// Pointer and keyboard navigation of a chart with channels along its axis.
function alongChannels(self, label, plot) {
  alongList(self, {
    label,
    items: channels,
    at: () => channels().indexOf(state.channel),
    x: (p) => plot().scale("x").apply(p),
    i: (x) => plot().scale("x").invert(x),
    describe: (p) => channelTip(channels()[p]),
    choose: (p) => choose({ channel: channels()[p] }),
  });
}

function channelTip(channel) {
  const block = here();
  const rows = [["all classes", gate(block.number("mean")[channel]), "var(--ink)"]];
  for (const c of state.classes) {
    const known = block.knows(c, channel);
    const spread = state.view === "spread" && known ? ` ± ${gate(block.classDeviation(c, channel))}` : "";
    rows.push([short(className(c), 22), known ? gate(block.classMean(c, channel)) + spread : "not stored", classColour(c)]);
  }
  return [`channel ${channel}`, rows];
}

function channelPlot(width, height, marks, list) {
  const block = here();
  const [low, high] = block.range;
  return Plot.plot({
    ...PLOT,
    width,
    height,
    marginLeft: 40,
    marginRight: 8,
    marginTop: 14,
    marginBottom: 42,
    x: { labelOffset: 36, domain: [-0.5, list.length - 0.5], label: axisLabel(list), labelAnchor: "center", labelArrow: "none", tickFormat: (i) => (Number.isInteger(i) && list[i] !== undefined ? String(list[i]) : ""), ticks: Math.min(list.length, Math.max(3, width / 70)) },
    y: { domain: [low, high], label: null, ticks: 5, grid: true },
    marks,
  });
}

const axisLabel = (list) =>
  `channel, ${list.length === here().channels ? `all ${count(list.length)}` : `${list.length} of ${count(here().channels)}, sampled`}${state.order === "index" ? "" : `, by ${ORDERS[state.order][0]}`}`;

// Selected classes without a stored mean for a visible channel.
const missingClasses = (list) => state.classes.filter((c) => list.some((channel) => !here().knows(c, channel)));

function keptNote(list) {
  const missing = missingClasses(list);
  if (!missing.length) return "";
  const { wide, bits } = data.header;
  return ` ${missing.map((c) => short(className(c), 24)).join(", ")}: stored for the sampled channels only, shown as points. All channels are stored for ${plural(wide.length, "class", "classes")}, such as ${wide.slice(0, 3).map((c) => short(className(c), 20)).join(", ")}.`;
}

function curvesView() {
  let plot;
  const self = chart({
    title: "Mean gate of each channel, by class",
    caption: () => `The paper’s figure 6. Strong line: mean over all images. Coloured lines: mean over a class. If the lines coincide, the block does not distinguish classes.${keptNote(channels())}`,
    draw: (width) => {
      const block = here();
      const list = channels();
      const many = list.length > 200;
      const smooth = state.order === "mean";
      const line = (values, options) => Plot.lineY(list, { x: (d, i) => i, y: values, ...options });
      const dots = (values, fill) => (list.length <= 60 && width > 500 ? Plot.dot(list, { x: (d, i) => i, y: values, fill, r: 2 }) : list.length === 1 ? Plot.dot(list, { x: 0, y: values, fill, r: 5 }) : null);
      const mean = (channel) => block.number("mean")[channel];
      plot = channelPlot(
        width,
        340,
        [
          // With many unsorted channels, a strong mean line would hide the classes.
          many && !smooth ? line(mean, { stroke: "var(--ink)", strokeWidth: 0.9 }) : null,
          ...state.classes.flatMap((c) => {
            const value = (channel) => block.classMean(c, channel);
            const known = list.filter((channel) => block.knows(c, channel));
            // Without stored neighbours there is no line, so draw a point.
            const alone = known.length < list.length ? Plot.dot(known, { x: (channel) => list.indexOf(channel), y: value, fill: classColour(c), r: 2.5 }) : dots(value, classColour(c));
            return [line(value, { stroke: classColour(c), strokeWidth: many ? 0.7 : 1.5, strokeOpacity: many ? 0.7 : 1 }), alone];
          }),
          many && smooth ? line(mean, { stroke: "var(--page)", strokeWidth: 4.5 }) : null,
          many && !smooth ? null : line(mean, { stroke: "var(--ink)", strokeWidth: 2.2 }),
          dots(mean, "var(--ink)"),
        ],
        list
      );
      queueMicrotask(() => self.mark());
      return plot;
    },
    numbers: () => ({
      columns: ["channel", "all classes", ...state.classes.map(className)],
      rows: channels().map((channel) => [channel, gate(here().number("mean")[channel]), ...state.classes.map((c) => gate(here().classMean(c, channel)))]),
    }),
  });
  alongChannels(self, "Channels, mean gate by class", () => plot);
  return [self];
}

function spreadView() {
  if (!state.classes.length) return [emptyView("Select a class above to see its gates.")];
  return state.classes.map((c, index) => {
    let plot;
    const self = chart({
      title: short(className(c), 60),
      caption: index === state.classes.length - 1 ? () => `The paper’s figure 7: mean of a class, with a band of one standard deviation over its images. Grey: mean over all classes.${keptNote(channels())}` : "",
      draw: (width) => {
        const block = here();
        const list = channels();
        const mean = (channel) => block.classMean(c, channel);
        const end = (sign) => (channel) => Math.max(block.range[0], Math.min(block.range[1], mean(channel) + sign * block.classDeviation(c, channel)));
        plot = channelPlot(
          width,
          state.classes.length > 2 ? 190 : 240,
          [
            Plot.areaY(list, { x: (d, i) => i, y1: end(-1), y2: end(1), fill: classColour(c), fillOpacity: 0.22 }),
            Plot.lineY(list, { x: (d, i) => i, y: (channel) => block.number("mean")[channel], stroke: "var(--faint)", strokeWidth: 1.2 }),
            Plot.lineY(list, { x: (d, i) => i, y: mean, stroke: classColour(c), strokeWidth: list.length > 200 ? 0.8 : 1.6 }),
          ],
          list
        );
        queueMicrotask(() => self.mark());
        return plot;
      },
      numbers: () => ({
        columns: ["channel", "mean", "standard deviation within the class", "mean over all classes"],
        rows: channels().map((channel) => [channel, gate(here().classMean(c, channel)), gate(here().classDeviation(c, channel)), gate(here().number("mean")[channel])]),
      }),
    });
    alongChannels(self, `Channels, gates within ${className(c)}`, () => plot);
    return self;
  });
}

function emptyView(text) {
  return { node: h("p", { class: "empty" }, text), redraw() {} };
}
