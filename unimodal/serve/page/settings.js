// The settings of answers: the fields that the model has, kept in this browser.

import { byId, element, markWrong, showPanel } from "./dom.js";

const KEPT = "unimodal-settings";
const CALLED = { seed: "seed", guidance: "guidance", candidates: "best of", steps: "steps",
  negative_prompt: "without" };
const NUMBERS = ["seed", "guidance", "steps", "candidates"];
const OF_DRAWINGS = ["guidance", "negative_prompt", "steps", "size"]; // refused beside words alone
const COUNTS = [1, 2, 4, 8]; // of candidates, as far as the server takes so many
const MOST_GUIDANCE = 1000; // the server's bounds
const MOST_STEPS = 1000;
const CHECKS = { // of a text, of all by name, and of the model's own
  seed: [(text) => /^\d+$/.test(text) && Number.isSafeInteger(Number(text)),
    `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`],
  guidance: [(text) => Number(text) >= 0 && Number(text) <= MOST_GUIDANCE,
    `a number from 0 to ${MOST_GUIDANCE}`],
  steps: [(text) => /^[1-9]\d*$/.test(text) && Number(text) <= MOST_STEPS,
    `a whole number from 1 to ${MOST_STEPS}`],
  negative_prompt: [(_, { guidance }, own) => Number(guidance ?? own.guidance ?? 1) !== 1,
    "a guidance other than 1, with words to leave out,"],
  candidates: [(_, { modalities }) => modalities !== "text", "an answer that may be an image"],
};

export class Settings {
  constructor() {
    this.panel = byId("settings");
    this.button = byId("settings-button");
    this.fields = [...this.panel.querySelectorAll("[name]")];
    this.partialImages = 0;
    this.own = {}; // the model's own, by name
    this.button.addEventListener("click", () => this.show(this.panel.hidden));
    byId("reset").addEventListener("click", () => this.#fill({}));
    this.panel.addEventListener("input", () => this.#changed());
  }

  /** Show the fields that a model has, as /v1/models tells of it, and what was kept. */
  offer({ sizes, settings }) {
    this.own = settings;
    const has = { image: sizes.length > 0, sizes: sizes.length > 0 };
    for (const name of ["guidance", "steps", "negative_prompt", "candidates"]) {
      has[name] = name in settings;
    }
    for (const label of this.panel.querySelectorAll("[data-needs]")) {
      label.hidden = !has[label.dataset.needs];
    }
    const named = Object.fromEntries(this.fields.map((field) => [field.name, field]));
    named.guidance.placeholder = `${settings.guidance ?? ""}`;
    named.steps.placeholder = `${settings.steps ?? "the model's own"}`;
    named.size.replaceChildren(...sizes.map((size, index) =>
      element("option", { value: index ? size : "", text: size.replace("x", " × ") })));
    named.candidates.replaceChildren(...COUNTS.filter((count) => count <= settings.candidates)
      .map((count) => (count === 1
        ? element("option", { value: "", text: "one drawing" })
        : element("option", { value: count, text: `the best of ${count}` }))));
    this.partialImages = settings.partial_images ?? 0;
    this.#fill(this.#kept());
  }

  show(isShown) {
    showPanel(this.panel, this.button, isShown);
  }

  /** Write a seed into its field. */
  setSeed(seed) {
    this.fields.find((field) => field.name === "seed").value = seed;
    this.#changed();
  }

  /** Return the fields of a request; of the ones that are left empty, the model's own hold. Returns
   * null where one is wrong, which is shown. */
  read() {
    const wrong = this.#wrong();
    this.#tell(wrong);
    if (wrong) {
      this.show(true);
      wrong.focus();
      return null;
    }
    const values = this.#values();
    const isUsed = ([name]) => values.modalities !== "text" || !OF_DRAWINGS.includes(name);
    const given = Object.entries(values).filter(isUsed).map(([name, text]) => {
      if (name === "modalities") return [name, [text]];
      return [name, NUMBERS.includes(name) ? Number(text) : text];
    });
    const fields = Object.fromEntries(given);
    // Which candidate is kept is known at the end alone: there is nothing to show before.
    const seen = fields.candidates ? { others: true } : { partial_images: this.partialImages };
    return { ...fields, ...seen };
  }

  /** What the fields hold, by name, without the empty ones and those that the model has not. */
  #values() {
    const isThere = (field) => field.value.trim() && !field.closest("label").hidden;
    const there = this.fields.filter(isThere);
    return Object.fromEntries(there.map((field) => [field.name, field.value.trim()]));
  }

  #wrong() {
    const values = this.#values();
    return this.fields.find(({ name }) =>
      values[name] && CHECKS[name] && !CHECKS[name][0](values[name], values, this.own));
  }

  #tell(wrong) {
    const problem = byId("settings-problem");
    for (const field of this.fields) markWrong(field, field === wrong, problem);
    problem.hidden = !wrong;
    if (!wrong) return;
    problem.textContent = `“${wrong.value.trim()}”: ${CHECKS[wrong.name][1]} is wanted.`;
  }

  #changed() {
    this.#tell(this.#wrong());
    const values = this.#values();
    const said = Object.entries(CALLED).filter(([name]) => values[name])
      .map(([name, word]) => `${word} ${values[name]}`);
    if (values.modalities) said.unshift(values.modalities === "image" ? "an image" : "words");
    byId("summary").textContent = said.join(", ") || "Settings";
    this.button.setAttribute("aria-label", ["Settings", ...said].join(", "));
    try {
      localStorage.setItem(KEPT, JSON.stringify(values));
    } catch {
      // A browser that keeps nothing has them until the page is closed.
    }
  }

  #kept() {
    try {
      return JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
      return {};
    }
  }

  #fill(values) {
    for (const field of this.fields) field.value = values[field.name] ?? "";
    for (const field of this.fields) if (field.selectedIndex === -1) field.selectedIndex = 0;
    this.#changed();
  }
}
