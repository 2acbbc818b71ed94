// The selected channel: its figures, and the classes and images with its lowest and highest gates.

let sheet = null; // one image with all thumbnails

async function openSheet() {
  const { thumbnails } = data.header.sample;
  if (thumbnails) sheet = await createImageBitmap(new Blob([stored(thumbnails.file)], { type: "image/jpeg" }));
}

function thumbnail(place, label) {
  const { size, cell, columns } = data.header.sample.thumbnails;
  const canvas = h("canvas", { role: "img", "aria-label": label, class: size < 40 ? "thumb coarse" : "thumb" });
  canvas.width = canvas.height = size;
  canvas.getContext("2d").drawImage(sheet, (place % columns) * cell, Math.floor(place / columns) * cell, size, size, 0, 0, size, size);
  return canvas;
}

function channelPanel() {
  const body = h("div");
  const input = h("input", { type: "number", id: "channel-number", min: 0, step: 1 });
  input.addEventListener("change", () => {
    const wanted = Math.round(Number(input.value));
    choose({ channel: Math.max(0, Math.min(here().channels - 1, Number.isFinite(wanted) ? wanted : state.channel)) });
    input.value = state.channel;
  });
  const step = (by) => () => {
    const list = channels();
    const at = list.indexOf(state.channel);
    // If the channel is not shown, its nearest neighbour by number.
    const next = at < 0 ? d3.least(list, (c) => Math.abs(c - state.channel)) : list[Math.max(0, Math.min(list.length - 1, at + by))];
    choose({ channel: next });
  };
  const panel = h(
    "aside",
    { class: "channel", "aria-labelledby": "channel-title" },
    h(
      "div",
      { class: "channel-head" },
      h("h3", { id: "channel-title" }, h("label", { for: "channel-number" }, "Channel")),
      h("span", { class: "stepper" }, h("button", { type: "button", class: "quiet", "aria-label": "Previous channel", onclick: step(-1) }, "‹"), input, h("button", { type: "button", class: "quiet", "aria-label": "Next channel", onclick: step(1) }, "›"))
    ),
    body
  );
  const update = () => {
    const block = here();
    const c = state.channel;
    input.max = block.channels - 1;
    input.value = c;
    const of = (name) => block.number(name)[c];
    const rank = 1 + d3.sum(block.number("eta"), (v) => v > of("eta"));
    const row = (name, value, note) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, ` ${note}`) : null));
    body.replaceChildren(
      h(
        "dl",
        { class: "figures" },
        row("mean gate", gate(of("mean"))),
        row("standard deviation", gate(of("deviation")), "over images"),
        row("within classes", gate(of("within"))),
        row("class share η²", gate(of("eta")), `rank ${count(rank)} of ${count(block.channels)}`),
        row("range", `${gate(of("minimum"))} – ${gate(of("maximum"))}`),
        block.has("space") ? row("within an image", gate(of("space")), "standard deviation") : null,
        row("squeeze", gate(of("squeeze")), `± ${gate(of("squeezeDeviation"))}`)
      ),
      ...[classesAtEnds(block, c), imagesAtEnds(block, c)].filter(Boolean)
    );
  };
  update();
  watchers.push(update);
  return panel;
}

function classesAtEnds(block, channel) {
  if (data.seen.length < 2) return null;
  const { low, high } = classEnds(block, channel, Math.min(3, Math.floor(data.seen.length / 2)));
  const list = (ends) =>
    h(
      "ul",
      {},
      ends.map(([c, mean]) =>
        h(
          "li",
          {},
          h("button", { type: "button", class: "link", title: `Show ${className(c)}`, "aria-pressed": String(state.classes.includes(c)), onclick: () => !state.classes.includes(c) && state.classes.length < MOST_CLASSES && choose({ classes: [...state.classes, c] }) }, short(className(c), 22)),
          h("span", {}, gate(mean))
        )
      )
    );
  return h("div", { class: "ends" }, h("div", {}, h("h4", {}, "Classes with the highest gate"), list(high)), h("div", {}, h("h4", {}, "Classes with the lowest gate"), list(low)));
}

function imagesAtEnds(block, channel) {
  if (!block.ends) return null;
  const places = block.open("end images", block.ends.images);
  const values = block.open("end gates", block.ends.gates);
  const width = block.ends.images.shape[1];
  const { labels } = data.header.sample;
  const row = (from, to) =>
    h(
      "ul",
      { class: sheet ? "images" : "images plain", style: `--columns: ${width === 8 || width === 4 ? width / 2 : 3}` },
      d3.range(from, to).map((i) => {
        const place = places[channel * width + i];
        const name = className(labels[place]);
        const value = gate(values[channel * width + i]);
        return h("li", { title: `${name}, gate ${value}` }, sheet ? thumbnail(place, `${name}, gate ${value}`) : null, h("span", {}, short(name, 16)), h("b", {}, value));
      })
    );
  return h(
    "div",
    { class: "ends-images" },
    h("h4", {}, "Images with the highest gate"),
    row(width / 2, width),
    h("h4", {}, "Images with the lowest gate"),
    row(0, width / 2),
    h("p", { class: "note" }, `Among ${plural(labels.length, "randomly sampled image")}.`)
  );
}
