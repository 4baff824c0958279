// Boxes say what is to stand where on the next drawing: dragged on a canvas, or written as numbers.
//
// A box has name, left, top, right and bottom, in pixels of the drawing.

import { byId, element, iconButton, markWrong, showPanel } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const SIDES = ["left", "top", "right", "bottom"];
const SHARE = 0.4; // of the canvas's sides, of a box that was not dragged
const LEAST = 2; // pixels of a side that was dragged; less is a click

/** Return a box as the API has it. */
export function written({ name, left, top, right, bottom }) {
  return [name, left, top, right, bottom].join(", ");
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Return the shapes of boxes: a rectangle each, and a number that is `size` pixels high. */
function shapes(boxes, size) {
  return boxes.flatMap(({ left, top, right, bottom }, index) => [
    drawn("rect", { x: left, y: top, width: Math.max(0, right - left),
      height: Math.max(0, bottom - top), "data-index": index }),
    drawn("text", { x: left + size / 3, y: top + size, "font-size": size }, index + 1),
  ]);
}

/** Return a picture of the boxes of a message, with their names. */
export function layoutOf(boxes) {
  const { width, height } = boxes[0].canvas;
  const picture = drawn("svg", { class: "layout", viewBox: `0 0 ${width} ${height}`,
    "aria-hidden": "true" });
  picture.append(...shapes(boxes, width / 6));
  const names = boxes.map((box) => element("li", {}, element("span", { text: box.name }),
    element("span", { class: "hidden", text: `, from ${box.left}, ${box.top} to ${box.right}, `
      + `${box.bottom} of ${width} by ${height} pixels` })));
  const named = { class: "placed", role: "group", "aria-label": "Where things go" };
  return element("div", named, picture, element("ol", {}, ...names));
}

export class Boxes {
  constructor() {
    this.panel = byId("placing");
    this.button = byId("place");
    this.canvas = byId("canvas");
    this.boxes = [];
    this.most = 0; // that the model takes; 0: it takes none
    this.button.addEventListener("click", () => this.show(this.panel.hidden));
    byId("add-box").addEventListener("click", () => this.#add(this.#around(...this.#middle())));
    this.#takeDragged();
  }

  /** Let boxes be drawn where the model takes them, as /v1/models tells of it. */
  offer({ sizes, settings }) {
    this.most = settings.boxes ?? 0;
    this.button.hidden = !this.most;
    if (!this.most) return;
    [this.width, this.height] = sizes[0].split("x").map(Number);
    this.canvas.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.#draw();
  }

  show(isShown) {
    showPanel(this.panel, this.button, isShown);
  }

  clear() {
    this.boxes = [];
    this.show(false);
    this.#list();
  }

  /** Return the boxes of the message; null where one is wrong, which is shown. */
  read() {
    const wrong = this.boxes.findIndex((box) => this.#problem(box));
    this.#tell(wrong < 0 ? null : this.#problem(this.boxes[wrong]).words);
    if (wrong < 0) return this.boxes.map((box) => ({ ...box, name: box.name.trim() }));
    this.show(true);
    const { name } = this.#problem(this.boxes[wrong]);
    const field = byId("boxes").children[wrong].querySelector(`[name=${name}]`);
    markWrong(field, true, byId("boxes-problem"));
    field.focus();
    return null;
  }

  /** Return what is wrong with a box, and in which field; null where nothing is. */
  #problem(box) {
    if (!box.name.trim()) return { name: "name", words: "Say what is to stand in each box." };
    const axes = [["left", "right", this.width], ["top", "bottom", this.height]];
    for (const [low, high, most] of axes) {
      if (!(box[low] >= 0 && box[low] < most)) return { name: low, words: this.#bounds(low, most) };
      if (!(box[high] > box[low] && box[high] <= most)) {
        return { name: high, words: `${this.#bounds(high, most)} It is larger than ${low}.` };
      }
    }
    return null;
  }

  #bounds(side, most) {
    return `“${side}” is a number of pixels, from 0 to ${most}.`;
  }

  #tell(words) {
    const problem = byId("boxes-problem");
    problem.hidden = !words;
    problem.textContent = words ?? "";
    for (const one of this.panel.querySelectorAll("[aria-invalid]")) markWrong(one, false, problem);
  }

  /** The middle of the canvas, a little further for each box that is there. */
  #middle() {
    const step = (this.boxes.length % 5) * 0.08;
    return [this.width * (0.34 + step), this.height * (0.34 + step)];
  }

  /** Return a box of the usual size around a place, within the canvas. */
  #around(x, y) {
    const [wide, high] = [Math.round(this.width * SHARE), Math.round(this.height * SHARE)];
    const left = Math.min(Math.max(0, Math.round(x - wide / 2)), this.width - wide);
    const top = Math.min(Math.max(0, Math.round(y - high / 2)), this.height - high);
    return { left, top, right: left + wide, bottom: top + high };
  }

  #add(place) {
    if (this.boxes.length >= this.most) {
      this.#tell(`${this.most} boxes are the most.`);
      return;
    }
    const canvas = { width: this.width, height: this.height };
    this.boxes.push({ name: "", ...place, canvas });
    this.#list();
    byId("boxes").lastElementChild.querySelector("input").focus();
  }

  /** Show the boxes as fields, and on the canvas. */
  #list() {
    this.#tell(null);
    byId("boxes").replaceChildren(...this.boxes.map((box, index) => this.#fields(box, index)));
    this.#draw();
  }

  #fields(box, index) {
    const field = (name, label, more) => element("input", {
      name, "aria-label": `${label} of box ${index + 1}`, autocomplete: "off", ...more,
      input: ({ target }) => {
        box[name] = name === "name" || !target.value.trim() ? target.value : Number(target.value);
        this.#tell(null);
        this.#draw();
      },
    });
    const name = field("name", "Thing", { placeholder: "a red circle" });
    name.value = box.name;
    const sides = SIDES.map((side) => {
      const made = field(side, side[0].toUpperCase() + side.slice(1), { inputmode: "decimal" });
      made.value = box[side];
      return made;
    });
    const remove = iconButton("close", `Remove box ${index + 1}`, () => {
      this.boxes.splice(index, 1);
      this.#list();
      byId("add-box").focus();
    });
    return element("li", {}, name, ...sides, remove);
  }

  #draw() {
    const there = this.boxes.filter((box) => SIDES.every((side) => Number.isFinite(box[side])));
    this.canvas.replaceChildren(...shapes(there, this.width / 14));
    const count = this.boxes.length;
    const said = `${count} ${count === 1 ? "box" : "boxes"}`;
    this.canvas.setAttribute("aria-label", `The drawing to be, with ${said}`);
    this.button.setAttribute("aria-label", `Say where things go${count ? `, ${said}` : ""}`);
    this.button.classList.toggle("used", count > 0);
  }

  /** Return where on the canvas an event is, in whole pixels of the drawing. */
  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const within = (share, most) => Math.round(Math.min(Math.max(0, share), 1) * most);
    return [within((clientX - left) / width, this.width),
      within((clientY - top) / height, this.height)];
  }

  /** Make a box of what is dragged over the canvas, and one around a click. */
  #takeDragged() {
    let from = null;
    let shape = null;
    const place = (to) => ({
      left: Math.min(from[0], to[0]), top: Math.min(from[1], to[1]),
      right: Math.max(from[0], to[0]), bottom: Math.max(from[1], to[1]),
    });
    const end = () => {
      shape?.remove();
      [from, shape] = [null, null];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      from = this.#at(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      shape?.remove();
      [shape] = shapes([place(this.#at(event))], 0);
      this.canvas.append(shape);
    });
    this.canvas.addEventListener("pointercancel", end);
    this.canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const to = this.#at(event);
      const box = place(to);
      end();
      const isDragged = box.right - box.left >= LEAST && box.bottom - box.top >= LEAST;
      this.#add(isDragged ? box : this.#around(...to));
    });
  }
}
