// Grad-CAM of a few images at the selected block.

function camSection(block) {
  const { cam } = data.header;
  if (!cam || !sheet) return null;
  const heading = h("h3", {}, "Grad-CAM");
  if (!(block.name in cam.maps))
    return h("div", { class: "cam" }, heading, h("p", { class: "note" }, "The output of this block is no map of two dimensions."));
  const maps = block.open("grad-cam", cam.maps[block.name]);
  const [, rows, columns] = cam.maps[block.name].shape;
  const byClass = d3.groups(d3.range(cam.places.length), (k) => data.header.sample.labels[cam.places[k]]);
  return h(
    "div",
    { class: "cam" },
    heading,
    h("p", { class: "note" }, `Where the output of this block supports the class of the image: ${rows} × ${columns} positions, from transparent (not) to yellow (most in this image).`),
    h(
      "div",
      { class: "cam-classes" },
      byClass.map(([c, images]) =>
        h(
          "div",
          {},
          h("h4", {}, short(className(c), 24)),
          h("div", { class: "cam-images" }, images.map((k) => camImage(cam.places[k], maps.subarray(k * rows * columns, (k + 1) * rows * columns), rows, columns, className(c))))
        )
      )
    )
  );
}

// An image, and the same image with its heat map.
function camImage(place, map, rows, columns, name) {
  const plain = thumbnail(place, name);
  const drawn = thumbnail(place, `${name}, with Grad-CAM`);
  const heat = document.createElement("canvas");
  [heat.width, heat.height] = [columns, rows];
  const pixels = new ImageData(columns, rows);
  map.forEach((value, i) => {
    const { r, g, b } = d3.rgb(d3.interpolateCividis(value / 255));
    pixels.data.set([r, g, b, 0.8 * value], 4 * i);
  });
  heat.getContext("2d").putImageData(pixels, 0, 0);
  const size = 4 * drawn.width; // finer than the image, so that the map is smooth
  const copy = document.createElement("canvas");
  copy.width = copy.height = drawn.width;
  copy.getContext("2d").drawImage(drawn, 0, 0);
  drawn.width = drawn.height = size;
  const context = drawn.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(copy, 0, 0, size, size);
  context.imageSmoothingEnabled = true;
  context.drawImage(heat, 0, 0, size, size);
  return h("div", { class: "cam-pair" }, plain, drawn);
}
