"use strict";

function startViewer(root, data) {
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas"), slider = part("slice"), said = part("said"), window_ = part("window");
  const outlines = part("outlines"), lines = part("lines"), jump = part("lesion");
  const screen = canvas.getContext("2d");
  const { width, height } = data;
  const pixels = document.createElement("canvas");
  pixels.width = width;
  pixels.height = height;
  const paper = pixels.getContext("2d", { willReadFrequently: true });
  root.hidden = false;
  const scale = Math.min(3, Math.max(1, (canvas.clientWidth * window.devicePixelRatio) / width));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * data.aspect * scale);
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  slider.max = data.slices.length - 1;
  const cache = new Map();
  let latest = 0;

  async function decode(kind, text) {
    const image = new Image();
    image.src = `data:image/${kind};base64,${text}`;
    await image.decode();
    paper.clearRect(0, 0, width, height);
    paper.drawImage(image, 0, 0);
    const { data: rgba } = paper.getImageData(0, 0, width, height);
    return Uint8Array.from({ length: width * height }, (_, index) => rgba[4 * index]);
  }

  async function load(index) {
    if (!cache.has(index)) {
      const { ct, labels } = data.slices[index];
      const gray = ct ? await decode("jpeg", ct) : new Uint8Array(width * height);
      const values = labels ? await decode("png", labels) : new Uint8Array(width * height);
      if (cache.size > 24) cache.delete(cache.keys().next().value);
      cache.set(index, { gray, values: values.map((value) => Math.round(value / data.labelStep)) });
    }
    return cache.get(index);
  }

  function grayTable() {
    const [low, high] = window_.value.split(",").map(Number), [first, last] = data.hu;
    return Uint8ClampedArray.from({ length: 256 }, (_, value) =>
      (255 * (first + (value / 255) * (last - first) - low)) / (high - low));
  }

  function paint({ gray, values }) {
    const table = grayTable(), picture = paper.createImageData(width, height), rgba = picture.data;
    for (let i = 0; i < gray.length; i += 1) {
      rgba[4 * i] = rgba[4 * i + 1] = rgba[4 * i + 2] = data.hasCt ? table[gray[i]] : 0;
      rgba[4 * i + 3] = 255;
    }
    paper.putImageData(picture, 0, 0);
    screen.imageSmoothingQuality = "high";
    screen.drawImage(pixels, 0, 0, canvas.width, canvas.height);
    if (outlines.checked) data.colours.forEach((colour, index) => outline(values, index + 1, colour));
  }

  function outline(values, least, colour) {
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] >= least;
    const path = new Path2D();
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (!inside(x, y)) continue;
        if (!inside(x - 1, y)) { path.moveTo(x, y); path.lineTo(x, y + 1); }
        if (!inside(x + 1, y)) { path.moveTo(x + 1, y); path.lineTo(x + 1, y + 1); }
        if (!inside(x, y - 1)) { path.moveTo(x, y); path.lineTo(x + 1, y); }
        if (!inside(x, y + 1)) { path.moveTo(x, y + 1); path.lineTo(x + 1, y + 1); }
      }
    }
    stroke(path, colour, 1.6);
  }

  function stroke(path, colour, thickness) {
    screen.save();
    screen.scale(canvas.width / width, canvas.height / height);
    screen.lineWidth = thickness / scale;
    screen.strokeStyle = colour;
    screen.stroke(path);
    screen.restore();
  }

  function drawLines(index) {
    for (const lesion of data.lesions) {
      if (lesion.slice !== index) continue;
      ["#f0e442", "#ffffff"].forEach((colour, k) => {
        const [[x0, y0], [x1, y1]] = lesion.lines[1 - k];
        const path = new Path2D();
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
        stroke(path, "#000000", 4);
        stroke(path, colour, 2);
      });
    }
  }

  function describe(index, values) {
    const { number, z } = data.slices[index];
    const structures = values.includes(2) ? "liver and tumour" : values.includes(1) ? "liver" : "no liver";
    const measured = data.lesions.filter((lesion) => lesion.slice === index).map((lesion) => lesion.id);
    const lesions = measured.length ? `, diameters of lesion ${measured.join(", ")}` : "";
    return `Slice ${number}, ${z.toFixed(1)} mm: ${structures}${lesions}`.replace("-", "\u2212");
  }

  async function show() {
    const index = Number(slider.value), turn = (latest += 1);
    const loaded = await load(index);
    if (turn !== latest) return; // another slice was asked for meanwhile
    paint(loaded);
    if (lines.checked) drawLines(index);
    const text = describe(index, loaded.values);
    said.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    canvas.setAttribute("aria-label", `Axial slice, the patient's right on the left. ${text}`);
    root.dataset.shown = index;
  }

  function go(index) {
    const bounded = Math.min(Math.max(index, 0), data.slices.length - 1);
    if (bounded === Number(slider.value)) return false;
    slider.value = bounded;
    show();
    return true;
  }

  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
    Home: -data.slices.length, End: data.slices.length };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    go(Number(slider.value) + steps[event.key]);
  });
  canvas.addEventListener("wheel", (event) => {
    if (go(Number(slider.value) - Math.sign(event.deltaY))) event.preventDefault();
  }, { passive: false });
  slider.addEventListener("input", show);
  for (const control of [window_, outlines, lines]) control.addEventListener("change", show);
  for (const lesion of data.lesions) jump.add(new Option(lesion.text, lesion.slice));
  jump.addEventListener("change", () => jump.value && go(Number(jump.value)));
  jump.closest("label").hidden = !data.lesions.length;
  window_.closest("label").hidden = !data.hasCt;
  slider.value = data.lesions.length ? data.lesions[0].slice : Math.floor(data.slices.length / 2);
  return show();
}

startViewer(document.getElementById("viewer"), JSON.parse(document.getElementById("viewer-data").textContent));
