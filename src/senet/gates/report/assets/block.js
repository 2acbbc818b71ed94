// The selected block: verdicts with their figures, advice, and ablations.

function blockSection() {
  const body = h("div");
  const status = h("p", { class: "visually-hidden", role: "status" });
  const section = h("section", { id: "block", tabindex: -1 }, body, status);
  const update = (before) => {
    if (before && before.block === state.block) return;
    const block = here();
    const { verdict } = block;
    if (before) status.textContent = `${block.label}: ${verdict.names.join(", ")}`;
    body.replaceChildren(
      h(
        "div",
        { class: "block-head" },
        h("h2", {}, block.label),
        h("p", { class: "chips" }, verdict.names.map((name) => h("span", { class: "chip", style: inVerdict(name), title: data.header.meanings[name] }, h("i", { class: "swatch", "aria-hidden": "true" }), name))),
        h("p", { class: "facts" }, facts(block))
      ),
      h(
        "div",
        { class: "columns" },
        h(
          "div",
          {},
          h("h3", {}, "Findings"),
          verdict.reasons.map((reason) => h("p", { class: "reason" }, reason)),
          verdict.advice.length ? h("h3", {}, "Advice") : null,
          verdict.advice.length ? h("ul", {}, verdict.advice.map((a) => h("li", {}, a))) : null
        ),
        h("div", {}, h("h3", {}, "Ablation"), ablationTable(verdict.ablations))
      ),
      ...[camSection(block), figures(verdict.figures)].filter(Boolean)
    );
  };
  update();
  watchers.push(update);
  return section;
}

function facts(block) {
  const hidden = block.hidden ? `, ${plural(block.hidden.on.shape[0], "hidden unit")}${block.activation ? ` (${block.activation})` : ""}` : "";
  const gain = block.gain === 1 ? "" : ` × ${block.gain}`;
  const name = block.name === block.label ? "" : `${block.name} · `;
  return `${name}${plural(block.channels, "channel")}${hidden} · squeeze ${block.squeeze} · gate ${block.gate}${gain} · ${block.kind}`;
}

function ablationTable(list) {
  if (!list.length)
    return h("p", { class: "note" }, "Not measured: run senet gates without --no-ablation.");
  const by = { mean: "mean gates", one: "1" };
  const loss = list.some((w) => w.loss);
  const span = ([value, low, high], digits) => [h("b", {}, change(value, digits)), h("span", { class: "interval" }, ` ${change(low, digits)} to ${change(high, digits)}`)];
  return h(
    "div",
    { class: "ablation" },
    h("p", { class: "note" }, "Change when only the gates of this block are replaced by constants. Positive: the network is worse without them."),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["constants", ...list[0].errors.map((name) => `${list[0].judged.better === "higher" ? `${name} lost` : name} (points)`), ...(loss ? ["loss (nats)"] : [])].map((c) => h("th", { scope: "col" }, c)))),
      h(
        "tbody",
        {},
        list.map((w) =>
          h("tr", {}, h("th", { scope: "row" }, by[w.by] ?? w.by), h("td", {}, span(w.top1, 2)), h("td", {}, span(w.top5, 2)), loss ? h("td", {}, span(w.loss, 3)) : null)
        )
      )
    ),
    list.map((w) => (w.logits === null ? null : h("p", { class: "note" }, `With ${w.by === "one" ? "gates of 1" : by[w.by] ?? w.by} the ${w.judged.outputs} change by ${share(w.logits)} of their standard deviation over images.`)))
  );
}

function figures(all) {
  const entries = Object.entries(all);
  if (!entries.length) return null;
  return h(
    "details",
    { class: "numbers" },
    h("summary", {}, "All figures"),
    h("dl", { class: "figures" }, entries.map(([key, value]) => h("div", {}, h("dt", {}, words(key)), h("dd", {}, value === null ? "–" : Number.isInteger(value) ? count(value) : gate(value)))))
  );
}
