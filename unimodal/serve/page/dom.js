// Elements, made without HTML: what a model or a person says is text and stays text.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with an id. */
export const byId = (id) => document.getElementById(id);

/** Return an element. Of its properties, functions listen to the event they are called by, `true`
 * and `false` are attributes that are there or not, and `text` is its text. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "text") made.textContent = value;
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Show a panel below its button, or hide it. */
export function showPanel(panel, button, isShown) {
  panel.hidden = !isShown;
  button.setAttribute("aria-expanded", String(isShown));
  if (isShown) panel.scrollIntoView({ block: "nearest" }); // in a low window the message scrolls
}

/** Mark a field as wrong or right; `problem` is the element that says what is wrong. */
export function markWrong(field, isWrong, problem) {
  const marks = { "aria-invalid": "true", "aria-describedby": problem.id };
  for (const [name, value] of Object.entries(marks)) {
    if (isWrong) field.setAttribute(name, value);
    else field.removeAttribute(name);
  }
}

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const drawn = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  drawn.setAttribute("aria-hidden", "true");
  drawn.append(use);
  return drawn;
}

/** Return a button that is an icon; `key` tells it from others, for the focus to find it again. */
export function iconButton(name, label, click, properties = {}) {
  const words = { type: "button", class: "icon", "aria-label": label, title: label };
  return element("button", { ...words, ...properties, click }, icon(name));
}
