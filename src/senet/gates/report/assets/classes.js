// The selected classes: chips that serve as the legend, and a search by name.

function classPicker() {
  const chips = h("ul", { class: "class-chips", "aria-label": "Selected classes" });
  const input = h("input", { type: "text", id: "class-search", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-expanded": "false", "aria-controls": "class-list", "aria-autocomplete": "list", placeholder: "Add a class by name" });
  const list = h("ul", { id: "class-list", role: "listbox", "aria-label": "Classes", hidden: true });
  const status = h("p", { class: "visually-hidden", role: "status" });
  let matches = [];
  let at = -1;

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    at = -1;
  };
  const add = (c) => {
    if (state.classes.length >= MOST_CLASSES) {
      status.textContent = `At most ${MOST_CLASSES} classes can be shown; remove one first.`;
      status.className = "note";
      return close();
    }
    status.className = "visually-hidden";
    status.textContent = `${className(c)} added`;
    input.value = "";
    close();
    choose({ classes: [...state.classes, c] });
  };
  const mark = () => {
    [...list.querySelectorAll("[role=option]")].forEach((option, i) => option.setAttribute("aria-selected", i === at));
    if (at >= 0) {
      input.setAttribute("aria-activedescendant", `class-option-${at}`);
      list.children[at].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const search = () => {
    const wanted = input.value.trim().toLowerCase();
    const rest = data.seen.filter((c) => !state.classes.includes(c) && className(c).toLowerCase().includes(wanted));
    matches = d3.sort(rest, (c) => (className(c).toLowerCase().startsWith(wanted) ? 0 : 1), (c) => c).slice(0, 40);
    list.replaceChildren(
      ...matches.map((c, i) =>
        h("li", { role: "option", id: `class-option-${i}`, onpointerdown: (event) => (event.preventDefault(), add(c)) }, className(c), data.keptAt.has(c) ? null : h("small", {}, " not stored in this page"))
      ),
      ...(rest.length > matches.length ? [h("li", { class: "more", role: "presentation" }, `and ${count(rest.length - matches.length)} more; refine the search`)] : []),
      ...(matches.length ? [] : [h("li", { class: "more", role: "presentation" }, "No matching class.")])
    );
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    at = wanted && matches.length ? 0 : -1;
    mark();
  };
  input.addEventListener("input", search);
  input.addEventListener("focus", search);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Backspace" && !input.value) choose({ classes: state.classes.slice(0, -1) });
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && at >= 0) add(matches[at]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) return search();
      if (matches.length) at = (at + (event.key === "ArrowDown" ? 1 : -1) + matches.length) % matches.length;
      mark();
    }
  });

  const draw = () => {
    const items = state.classes.map((c) =>
      h(
        "li",
        {},
        h("i", { class: "swatch", style: `background: ${classColour(c)}`, "aria-hidden": "true" }),
        h("span", { title: className(c) }, short(className(c), 24)),
        h("button", { type: "button", "aria-label": `Remove ${className(c)}`, onclick: () => (choose({ classes: state.classes.filter((x) => x !== c) }), input.focus(), close()) }, "×")
      )
    );
    chips.replaceChildren(h("li", { class: "fixed" }, h("i", { class: "swatch all", "aria-hidden": "true" }), h("span", {}, "all classes")), ...items);
  };
  draw();
  watchers.push((before) => before.classes !== state.classes && draw());
  return h("div", { class: "picker" }, h("label", { for: "class-search" }, "Classes"), chips, h("div", { class: "combo" }, input, list), status);
}
