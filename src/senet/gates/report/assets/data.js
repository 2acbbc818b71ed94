// The data: base64 of gzip of the length of a JSON text, the JSON text, and the arrays it references.

const KINDS = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };
const data = { header: null, bytes: null, blocks: [] };

async function load() {
  if (typeof DecompressionStream === "undefined")
    throw new Error(
      "This browser does not support DecompressionStream, which this page needs. " +
        "Use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer."
    );
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(raw.buffer).getUint32(0, true);
  data.header = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
  data.bytes = raw.subarray(4 + length);
  data.keptAt = new Map(data.header.kept.map((c, i) => [c, i]));
  data.wideAt = new Map(data.header.wide.map((c, i) => [c, i]));
  data.seen = d3.range(data.header.classes.length).filter((c) => data.header.counts[c] > 0);
  data.blocks = data.header.blocks.map(openBlock);
  shortenLabels();
  document.getElementById("data").remove();
}

// Shorten module names for narrow places by removing common prefixes and suffixes.
function shortenLabels() {
  const named = data.blocks.filter((b) => b.label === b.name);
  const parts = named.map((b) => b.name.split("."));
  const shared = (at) => parts.length > 1 && parts.every((p) => p.length > 1 && p.at(at) === parts[0].at(at));
  while (shared(0)) parts.forEach((p) => p.shift());
  while (shared(-1)) parts.forEach((p) => p.pop());
  data.blocks.forEach((b) => (b.short = b.label));
  named.forEach((b, i) => (b.short = parts[i].join(".")));
}

// A stored array: all first bytes of the numbers, then all second bytes.
function stored(ref) {
  const count = ref.shape.reduce((a, b) => a * b, 1);
  const width = KINDS[ref.kind].BYTES_PER_ELEMENT;
  const out = new Uint8Array(count * width);
  for (let part = 0; part < width; part++)
    for (let i = 0; i < count; i++) out[i * width + part] = data.bytes[ref.at + part * count + i];
  return new KINDS[ref.kind](out.buffer);
}

// The decoded numbers of a stored array.
function numbers(ref) {
  if (!ref.low) return stored(ref);
  const steps = stored(ref);
  const low = numbers(ref.low);
  const high = numbers(ref.high);
  const row = ref.shape[ref.shape.length - 1];
  const most = 2 ** ref.bits - 1;
  return Float32Array.from(steps, (s, i) => {
    const r = Math.floor(i / row);
    return low[r] + (s / most) * (high[r] - low[r]);
  });
}

// A block. Arrays are decoded on first use.
function openBlock(raw, index) {
  const opened = new Map();
  const get = (name, open) => {
    if (!opened.has(name)) opened.set(name, open());
    return opened.get(name);
  };
  const sampledAt = new Map(raw.sampled.map((c, i) => [c, i]));
  const byClass = (inFull, wide) => (cls, channel) => {
    const row = sampledAt.get(channel);
    const column = data.keptAt.get(cls);
    if (row !== undefined && column !== undefined)
      return get(inFull, () => numbers(raw[inFull]))[row * raw[inFull].shape[1] + column];
    const other = data.wideAt.get(cls);
    return other === undefined ? NaN : get(wide, () => numbers(raw[wide]))[channel * raw[wide].shape[1] + other];
  };
  return {
    ...raw,
    index,
    sampledAt,
    all: d3.range(raw.channels),
    // 50 channels, as in the paper's figure 6.
    shown: raw.fifty.filter((c) => sampledAt.has(c)),
    number: (name) => get("number " + name, () => numbers(raw.numbers[name])),
    has: (name) => name in raw.numbers,
    classMean: byClass("means", "wideMeans"),
    classDeviation: byClass("deviations", "wideDeviations"),
    // Whether the mean of a class is stored for a channel.
    knows: (cls, channel) => (sampledAt.has(channel) && data.keptAt.has(cls)) || data.wideAt.has(cls),
    open: (name, ref) => get(name, () => numbers(ref)),
  };
}

// Classes with the lowest and the highest means of a channel, as [class, mean], extremes first.
function classEnds(block, channel, count = 3) {
  if (block.extremes) {
    const classes = block.open("extreme classes", block.extremes.classes);
    const means = block.open("extreme means", block.extremes.means);
    const width = block.extremes.classes.shape[1];
    const at = d3.range(width).map((i) => [classes[channel * width + i], means[channel * width + i]]);
    return { low: at.slice(0, width / 2), high: at.slice(width / 2) };
  }
  const sorted = d3.sort(
    data.seen.map((c) => [c, block.classMean(c, channel)]),
    (d) => d[1]
  );
  return { low: sorted.slice(0, count), high: sorted.slice(-count).reverse() };
}

// Orders of channels.
const ORDERS = {
  index: ["channel number", null],
  eta: ["class specificity (η²), descending", (b, c) => -b.number("eta")[c]],
  mean: ["mean gate, ascending", (b, c) => b.number("mean")[c]],
  deviation: ["standard deviation over images, descending", (b, c) => -b.number("deviation")[c]],
};
function inOrder(block, all, order) {
  const key = ORDERS[order][1];
  const channels = all ? block.all : block.shown;
  return key ? d3.sort(channels, (c) => key(block, c)) : channels;
}
