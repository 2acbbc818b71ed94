// Heat map of mean gates: channels by classes, both ordered by hierarchical clustering.

const cellsFrom = (n, bins, i) => [Math.floor((i * n) / bins), Math.floor(((i + 1) * n) / bins)];

function heatView() {
  const block = here();
  const [nx, ny] = block.heat.cells.shape;
  const values = block.open("heat", block.heat.cells);
  const channelOrder = block.open("heat channels", block.heat.channels);
  const classOrder = block.open("heat classes", block.heat.classes);
  const rowMean = d3.range(nx).map((i) => d3.mean(values.subarray(i * ny, (i + 1) * ny)));
  const members = (order, bins, i) => Array.from(order.subarray(...cellsFrom(order.length, bins, i)));
  const value = (i, j) => values[i * ny + j] - (state.difference ? rowMean[i] : 0);
  let [ci, cj] = [Math.max(0, Math.floor((channelOrder.indexOf(state.channel) * nx) / channelOrder.length)), 0];
  const box = { left: 0, top: 4, width: 0, height: 0 };
  let tip;

  const most = () => d3.max(values, (v, k) => Math.abs(v - rowMean[Math.floor(k / ny)])) || 1e-6;
  const ramp = () => {
    if (!state.difference) {
      const [low, high] = block.range;
      return { domain: [low, high], colour: (v) => d3.interpolateViridis((v - low) / (high - low || 1)) };
    }
    const m = most();
    const ends = isDark() ? ["#5ab0ff", "#1b1f26", "#ff8a5c"] : ["#2166ac", "#f7f7f5", "#b2382b"];
    const mix = d3.piecewise(d3.interpolateLab, ends);
    return { domain: [-m, m], colour: (v) => mix((v / m + 1) / 2) };
  };

  const readout = h("output", { class: "readout", "aria-live": "polite" });
  const describe = (i, j) => {
    const inChannel = members(channelOrder, nx, i);
    const inClass = members(classOrder, ny, j);
    const list = (items) => items.slice(0, 3).join(", ") + (items.length > 3 ? ` and ${items.length - 3} more` : "");
    const v = values[i * ny + j];
    return [
      `${inChannel.length > 1 ? "channels" : "channel"} ${list(inChannel)}`,
      [[inClass.length > 1 ? "classes" : "class", short(list(inClass.map((c) => short(className(c), 24))), 60)], ["mean gate", gate(v)], ["difference from the channel’s mean", change(v - rowMean[i], 3)]],
    ];
  };
  const announce = (i, j) => {
    const [title, rows] = describe(i, j);
    readout.textContent = `${title}: ${rows.map(([k, v]) => `${k} ${v}`).join("; ")}`;
  };
  const toggle = h(
    "label",
    { class: "switch" },
    h("input", { type: "checkbox", onchange: (event) => choose({ difference: event.target.checked }) }),
    "Difference from each channel’s mean over classes"
  );
  toggle.firstChild.checked = state.difference;

  const self = chart({
    title: "Mean gates, channels by classes",
    controls: toggle,
    holder: { tabindex: 0, role: "group", "aria-roledescription": "heat map", "aria-label": "Heat map of mean gates, channels across and classes down. Arrow keys move, Enter selects the channel." },
    caption: () => {
      const merged = nx < channelOrder.length || ny < classOrder.length;
      const size = merged ? ` Cells are averaged: ${nx} columns for ${plural(channelOrder.length, "channel")}, ${ny} rows for ${plural(classOrder.length, "class", "classes")}.` : "";
      return `Channels by classes, both ordered by hierarchical clustering (Ward). A column of one colour: the channel does not distinguish classes.${size}`;
    },
    draw: (width) => {
      const names = ny <= 24;
      box.left = names ? Math.min(150, width * 0.28) : 26;
      box.width = width - box.left - 2;
      box.height = names ? Math.max(120, ny * 20) : Math.min(420, Math.max(280, ny * 4));
      const scale = window.devicePixelRatio || 1;
      const canvas = h("canvas", { "aria-hidden": "true", style: `width: ${width}px; height: ${box.height + 34}px` });
      canvas.width = width * scale;
      canvas.height = (box.height + 34) * scale;
      const context = canvas.getContext("2d");
      context.scale(scale, scale);
      const { domain, colour: paint } = ramp();
      // Draw one pixel for each cell, then scale without smoothing.
      const small = h("canvas", {});
      [small.width, small.height] = [nx, ny];
      const pixels = small.getContext("2d");
      const image = pixels.createImageData(nx, ny);
      for (let i = 0; i < nx; i++)
        for (let j = 0; j < ny; j++) {
          const { r, g, b } = d3.rgb(paint(value(i, j)));
          image.data.set([r, g, b, 255], 4 * (j * nx + i));
        }
      pixels.putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, box.left, box.top, box.width, box.height);
      context.font = "12px system-ui, sans-serif";
      context.fillStyle = colour("--soft");
      context.textBaseline = "middle";
      context.textAlign = "right";
      if (names) for (let j = 0; j < ny; j++) context.fillText(fitted(context, className(classOrder[j]), box.left - 8), box.left - 8, box.top + ((j + 0.5) * box.height) / ny);
      else {
        context.save();
        context.translate(12, box.top + box.height / 2);
        context.rotate(-Math.PI / 2);
        context.textAlign = "center";
        context.fillText(`${count(classOrder.length)} classes`, 0, 0);
        context.restore();
      }
      context.textAlign = "left";
      context.fillText(`${count(channelOrder.length)} channels`, box.left, box.top + box.height + 17);
      // The colour scale.
      const ends = domain.map((v) => (state.difference ? change(v, 2) : d3.format("~g")(v)));
      const bar = { width: Math.min(150, box.width * 0.3), height: 8, y: box.top + box.height + 13 };
      bar.x = box.left + box.width - bar.width - context.measureText(ends[1]).width - 6;
      for (let k = 0; k < bar.width; k++) {
        context.fillStyle = paint(domain[0] + ((domain[1] - domain[0]) * k) / bar.width);
        context.fillRect(bar.x + k, bar.y, 1.5, bar.height);
      }
      context.fillStyle = colour("--soft");
      context.textAlign = "right";
      context.fillText(ends[0], bar.x - 6, bar.y + 4);
      context.fillText(ends[1], box.left + box.width, bar.y + 4);
      cursor();
      return canvas;
    },
    numbers: () => ({
      columns: ["channels", ...d3.range(ny).map((j) => members(classOrder, ny, j).slice(0, 2).map((c) => short(className(c), 18)).join(", ") + (members(classOrder, ny, j).length > 2 ? " …" : ""))],
      rows: d3.range(nx).map((i) => [members(channelOrder, nx, i).slice(0, 4).join(", "), ...d3.range(ny).map((j) => gate(value(i, j)))]),
    }),
  });

  const ring = h("div", { class: "ring overlay", hidden: true });
  const column = h("div", { class: "guide chosen overlay" });
  self.place.append(ring, column);
  tip = tooltip(self.place);
  const centre = (i, j) => [box.left + ((i + 0.5) * box.width) / nx, box.top + ((j + 0.5) * box.height) / ny];
  const cursor = () => {
    const chosen = Math.floor((channelOrder.indexOf(state.channel) * nx) / channelOrder.length);
    column.style.cssText = `transform: translateX(${centre(chosen, 0)[0]}px); bottom: auto; top: ${box.top}px; height: ${box.height}px`;
  };
  const show = (i, j) => {
    const [x, y] = centre(i, j);
    const [w, t] = [Math.max(4, box.width / nx), Math.max(4, box.height / ny)];
    ring.hidden = false;
    ring.style.cssText = `left: ${x - w / 2}px; top: ${y - t / 2}px; width: ${w}px; height: ${t}px`;
    tip.show(x, y, ...describe(i, j));
  };
  const hide = () => {
    ring.hidden = true;
    tip.hide();
  };
  const where = (event) => {
    const at = self.place.getBoundingClientRect();
    const bound = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
    return [bound((event.clientX - at.left - box.left) / box.width, nx), bound((event.clientY - at.top - box.top) / box.height, ny)];
  };
  const pick = (i) => choose({ channel: members(channelOrder, nx, i)[0] });
  self.place.addEventListener("pointermove", (event) => self.width && show(...where(event)));
  self.place.addEventListener("pointerleave", hide);
  self.place.addEventListener("blur", hide);
  self.place.addEventListener("click", (event) => {
    [ci, cj] = where(event);
    pick(ci);
  });
  self.place.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return pick(ci);
    }
    if (!moves || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    ci = Math.max(0, Math.min(nx - 1, ci + moves[0]));
    cj = Math.max(0, Math.min(ny - 1, cj + moves[1]));
    show(ci, cj);
    announce(ci, cj);
  });
  self.node.querySelector(".plot").after(readout);
  return [self];
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  while (text.length > 1 && context.measureText(text + "…").width > width) text = text.slice(0, -1);
  return text + "…";
}
