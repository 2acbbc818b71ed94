// The paper's figures 6 and 7: gates by channel, for chosen classes and over all, and their deviation within a class.

// What every picture with channels along its axis has.
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
    rows.push([short(className(c), 22), known ? gate(block.classMean(c, channel)) + spread : "not kept", classColour(c)]);
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

// The classes of which no mean was kept for a channel that is shown.
const unknown = (list) => state.classes.filter((c) => list.some((channel) => !here().knows(c, channel)));

function keptNote(list) {
  const lost = unknown(list);
  if (!lost.length) return "";
  const { wide, bits } = data.header;
  return ` ${lost.map((c) => short(className(c), 24)).join(", ")}: kept for the sampled channels only, so they are points here. All channels are kept for ${plural(wide.length, "class", "classes")}, such as ${wide.slice(0, 3).map((c) => short(className(c), 20)).join(", ")}.`;
}

function curvesView() {
  let plot;
  const self = picture({
    title: "Mean gate of each channel, by class",
    caption: () => `The paper’s figure 6. The strong line is the mean over all images, coloured lines are means over a class. Lines that lie on one another: the block treats classes alike.${keptNote(channels())}`,
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
          // Of many channels in no order the mean goes up and down as much as classes do, and would hide them.
          many && !smooth ? line(mean, { stroke: "var(--ink)", strokeWidth: 0.9 }) : null,
          ...state.classes.flatMap((c) => {
            const value = (channel) => block.classMean(c, channel);
            const known = list.filter((channel) => block.knows(c, channel));
            // Where a channel's neighbours are not kept there is no line to see it by.
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
  if (!state.classes.length) return [emptyView("Choose a class above: this picture shows the gates within one.")];
  return state.classes.map((c, index) => {
    let plot;
    const self = picture({
      title: short(className(c), 60),
      caption: index === state.classes.length - 1 ? () => `The paper’s figure 7: mean of a class and, shaded, one standard deviation on either side over its images. Grey: the mean over all classes.${keptNote(channels())}` : "",
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
        columns: ["channel", "mean", "deviation within the class", "mean over all classes"],
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
