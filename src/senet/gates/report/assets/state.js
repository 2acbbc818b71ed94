// The selection, and callbacks for its changes.

const state = { block: 0, channel: 0, classes: [], order: "index", all: false, view: "curves", difference: false };
const watchers = [];
const MOST_CLASSES = 8;

function choose(patch) {
  const before = { ...state };
  Object.assign(state, patch);
  if (patch.block !== undefined && patch.block !== before.block && patch.channel === undefined)
    state.channel = mostSpecific(data.blocks[state.block]);
  for (const watch of watchers) watch(before);
}

const here = () => data.blocks[state.block];
const channels = () => inOrder(here(), state.all, state.order);
const classColour = (c) => `var(--c${state.classes.indexOf(c) % MOST_CLASSES})`;

// The initial channel: the most class-specific of the shown channels.
function mostSpecific(block) {
  const eta = block.number("eta");
  return block.shown[d3.maxIndex(block.shown, (c) => eta[c])] ?? 0;
}
