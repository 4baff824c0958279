// The messages of the branch that is shown.

import { imageBefore, verdict } from "./answer.js";
import { layoutOf } from "./boxes.js";
import { byId, element, icon, iconButton } from "./dom.js";
import { download } from "./images.js";

const SHOWN = 256; // pixels of a drawing's width; a small one is enlarged by a whole number
const FOLLOWING = ["make it green", "add a yellow star", "what do you see?"];
const NEAR_END = 120; // pixels

export class Thread {
  /** `acts` has what the buttons do: edit, choose, retry, again, ask, use, seed, compare, exchange,
   * key. */
  constructor(acts) {
    this.acts = acts;
    this.editing = null; // the message that is being edited
    this.focused = undefined; // the key of the button that has the focus, or had it before it went
    this.shown = new Map(); // by a message's id, its element and what it was made of
    this.sizes = new Map(); // of drawings by their URL
    this.#stayAtEnd();
  }

  /** Keep the end in sight of who reads there, when the window or the message field grows. */
  #stayAtEnd() {
    const scroller = byId("scroller");
    let isAtEnd = true;
    scroller.addEventListener("scroll", () => {
      isAtEnd = isNearEnd(scroller);
    });
    new ResizeObserver(() => {
      if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
    }).observe(scroller);
  }

  /** Show a conversation's branch. `toEnd`: scroll to its end, wherever the reader is. */
  show(conversation, { toEnd = false } = {}) {
    const scroller = byId("scroller");
    const isAtEnd = isNearEnd(scroller);
    this.focused = document.activeElement?.dataset?.key ?? this.focused;
    const { path } = conversation;
    const fresh = new Map();
    path.forEach((message, index) => {
      fresh.set(message.id, this.#made(message, conversation, path, index));
    });
    this.shown = fresh;
    this.#place(path.map(({ id }) => fresh.get(id).made));
    this.#refocus();
    if (toEnd || isAtEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  /** Give the focus back to the button that had it, as soon as it is there again. */
  #refocus() {
    const active = document.activeElement;
    const named = `[data-key="${this.focused}"]`;
    if (active !== document.body) this.focused = active?.dataset?.key;
    else if (this.focused) focusOrOther(byId("thread").querySelector(named));
  }

  /** Put elements into the thread; those that stay are not touched, nor is what they hold. */
  #place(wanted) {
    const thread = byId("thread");
    for (const old of [...thread.children]) if (!wanted.includes(old)) old.remove();
    wanted.forEach((one, index) => {
      if (thread.children[index] !== one) thread.insertBefore(one, thread.children[index] ?? null);
    });
  }

  /** Return a message's element, the one that is there if nothing has changed. */
  #made(message, conversation, path, index) {
    const versions = conversation.versions(message);
    const isLast = index === path.length - 1;
    const cut = message.role === "user" ? this.#newlyCut(path, index) : 0;
    const of = JSON.stringify([
      message.text.length, message.images.length, message.partial?.number, message.status,
      message.seed, message.compare, message.error, message.notes, message.unsatisfied,
      conversation.after(message.id).length, versions.length,
      versions.indexOf(message),
      this.editing === message, isLast, path.length, cut,
    ]);
    const old = this.shown.get(message.id);
    if (old?.of === of) return old;
    const place = { message, conversation, versions, isLast, path, cut };
    const made = message.role === "user" ? this.#asked(place) : this.#answer(place);
    return { made, of };
  }

  /** How many turns the model no longer sees from a message on, if more than before; else 0. */
  #newlyCut(path, index) {
    const before = path.slice(0, index).findLast((one) => one.cut)?.cut ?? 0;
    const now = path[index + 1]?.cut ?? 0;
    return now > before ? now : 0;
  }

  // --- what a person says ------------------------------------------------------------------------

  #asked({ message, versions, cut }) {
    const { id } = message;
    const images = message.images.map((image) => element("img", {
      class: "given", src: image.url, alt: `The image that you gave: ${image.name ?? "image"}`,
    }));
    const head = element("h2", { class: "hidden", text: "You" });
    const article = element("article", { class: "asked" });
    if (cut) {
      const turns = cut === 1 ? "turn" : `${cut} turns`;
      article.append(element("p", { class: "cut",
        text: `From here on the model no longer sees the oldest ${turns}: its memory is full.` }));
    }
    if (this.editing === message) {
      article.append(head, this.#editor(message, images));
      return article;
    }
    const bubble = element("div", { class: "bubble" }, ...images);
    if (message.text) bubble.append(element("p", { class: "words", text: message.text }));
    if (message.boxes?.length) bubble.append(layoutOf(message.boxes));
    const edit = iconButton("edit", "Edit this message; the branch as it is stays",
      () => this.edit(message), { "data-key": `${id}-edit` });
    const acts = element("div", { class: "actions" }, this.#versions(message, versions), edit);
    article.append(head, element("div", { class: "line" }, bubble, acts));
    return article;
  }

  /** Begin to edit a message. */
  edit(message) {
    this.editing = message;
    this.acts.changed();
    const field = byId("thread").querySelector("textarea");
    field?.focus();
    field?.setSelectionRange(field.value.length, field.value.length);
  }

  #editor(message, images) {
    const field = element("textarea", { "aria-label": "The edited message", rows: "2" });
    field.value = message.text;
    const leave = () => {
      this.editing = null;
      this.acts.changed();
      byId("thread").querySelector(`[data-key="${message.id}-edit"]`)?.focus();
    };
    const send = () => {
      const text = field.value.trim();
      if (!text && !images.length && !message.boxes?.length) return;
      if (this.acts.edit(message, text)) byId("words").focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const submit = (event) => {
      event.preventDefault();
      send();
    };
    const buttons = element("p", { class: "buttons" },
      element("button", { type: "button", class: "plain", text: "Cancel", click: leave }),
      element("button", { type: "submit", class: "main", text: "Send as a new branch" }));
    const named = { class: "editor", "aria-label": "Edit the message", submit };
    return element("form", named, ...images, field, buttons);
  }

  // --- what the model says -----------------------------------------------------------------------

  #answer(place) {
    const { message, versions, isLast, path } = place;
    const isWorking = message.status === "working";
    const article = element("article", { class: "answer", "aria-busy": String(isWorking) },
      element("h2", { class: "hidden", text: "Answer" }), ...this.#pieces(place));
    const isEmpty = !message.text && !message.images.length;
    if (isWorking && isEmpty && !message.partial) {
      const dots = [0, 1, 2].map(() => element("span"));
      const named = { class: "dots", role: "img", "aria-label": "Working" };
      article.append(element("p", named, ...dots));
      const count = message.asked.candidates;
      const text = `Drawing ${count}, to keep the best.`;
      if (count) article.append(element("p", { class: "note", text }));
    }
    const notes = (message.notes ?? []).map((text) => element("p", { class: "note", text }));
    article.append(...notes);
    if (["failed", "stopped"].includes(message.status)) article.append(this.#problem(message));
    if (isWorking) return article;
    const retry = message.status === "done" && iconButton(
      "retry", "Answer again, with another seed", () => this.acts.retry(message),
      { "data-key": `${message.parent}-retry` });
    const acts = [retry || null, this.#versions(message, versions)].filter(Boolean);
    const caption = article.lastElementChild.querySelector("figcaption");
    if (message.unsatisfied) article.append(...this.#checked(place));
    if (caption) caption.querySelector(".space").after(...acts);
    else article.append(element("div", { class: "actions" }, ...acts));
    if (isLast && path.length === 2 && message.status === "done" && message.images.length) {
      article.append(element("ul", { class: "chips", "aria-label": "Go on, for example" },
        ...FOLLOWING.map((text) => element("li", {},
          element("button", { type: "button", text, click: () => this.acts.ask(text) })))));
    }
    return article;
  }

  /** Yield the words and images of an answer in their order. */
  *#pieces(place) {
    const { message } = place;
    const { partial } = message;
    const images = partial ? [...message.images, { ...partial, isPartial: true }] : message.images;
    const characters = [...message.text]; // positions count these, not units of UTF-16
    let at = 0;
    for (const image of images) {
      yield* words(characters.slice(at, image.position).join(""));
      yield image.isPartial ? this.#drawing(image) : this.#drawn(image, place);
      at = image.position;
    }
    yield* words(characters.slice(at).join(""));
  }

  /** An image that is being drawn. */
  #drawing(image) {
    const bar = element("progress", { max: this.acts.partialImages() + 1, value: image.number + 1,
      "aria-label": "Drawing" });
    const picture = this.#picture(image.url, "A drawing in the making");
    return element("figure", { class: "drawing" }, picture, bar);
  }

  #drawn(image, { message, conversation, path }) {
    const asked = path[path.indexOf(message) - 1];
    const before = imageBefore(conversation, message);
    const isCompared = Boolean(before && message.compare);
    const alt = `Drawing for “${asked.text || "an image"}”, seed ${message.seed}`;
    const after = this.#picture(image.url, alt, isCompared && "After");
    const like = this.#sizeOf(image.url).width;
    const old = isCompared ? this.#picture(before.url, "The image before", "Before", like) : null;
    const key = `${message.id}-${message.images.indexOf(image)}`;
    const pressed = { "aria-pressed": String(isCompared), "data-key": `${key}-compare` };
    const compare = before && iconButton(
      "compare", "Before and after", () => this.acts.compare(message), pressed);
    const seed = element("button", { type: "button", class: "seed", text: `seed ${message.seed}`,
      title: "Use this seed from now on", "aria-label": `Use seed ${message.seed} from now on`,
      "data-key": `${key}-seed`, click: () => this.acts.seed(message.seed) });
    return element("figure", { class: "drawn", "aria-label": `Drawing, seed ${message.seed}` },
      element("div", { class: "pictures" }, old, after),
      element("figcaption", {}, seed, element("span", { class: "space" }), compare,
        iconButton("use", "Put this image into the next message", () => this.acts.use(image.url),
          { "data-key": `${key}-use` }),
        iconButton("download", "Download this image with its provenance",
          () => download(image.url, asked.text, message.seed), { "data-key": `${key}-download` })));
  }

  /** What the best of several lacks, and the others, to look at and to keep instead. */
  #checked({ message, conversation }) {
    const { unsatisfied, others } = message;
    const said = element("p", { class: unsatisfied.length ? "verdict lacking" : "verdict" },
      element("span", { text: verdict(message) }));
    if (!others.length) return [said];
    const isOpen = conversation.after(message.id).length === 0; // nothing was said of it yet
    const toggle = ({ target }) => { message.showsOthers = target.open; };
    const title = others.length === 1 ? "The other one" : `The other ${others.length}`;
    const folded = { class: "others", open: Boolean(message.showsOthers), toggle };
    return [said, element("details", folded,
      element("summary", { text: title, "data-key": `${message.id}-others` }),
      element("ul", {}, ...others.map((_, index) => this.#other(message, index, isOpen))))];
  }

  #other(message, index, canBeKept) {
    const { seed, unsatisfied, images: [{ url }] } = message.others[index];
    const lacks = unsatisfied.length ? `lacks ${unsatisfied.join("; ")}` : "has all of it";
    const click = () => {
      message.showsOthers = true; // they are, though `toggle` may come only after this
      this.acts.exchange(message, index);
    };
    const keep = canBeKept && element("button", { type: "button", text: "Keep this one",
      "aria-label": `Keep the drawing with seed ${seed} instead`,
      "data-key": `${message.id}-keep-${index}`, click });
    return element("li", {},
      element("figure", { "aria-label": `Candidate, seed ${seed}` },
        this.#picture(url, `Candidate with seed ${seed}, which ${lacks}`),
        element("figcaption", {}, element("span", { text: `seed ${seed}, ${lacks}` }))),
      keep || null);
  }

  /** An image, enlarged by a whole number if it is small, or as wide as one of `like` pixels would
   * be shown; `label` stands on it. */
  #picture(url, alt, label, like) {
    const { width, height } = this.#sizeOf(url);
    const wide = like ?? width;
    const shown = wide * Math.max(1, Math.floor(SHOWN / wide));
    const high = Math.round(height * shown / width);
    const small = shown > width ? "small" : null;
    const image = element("img", { src: url, alt, width: shown, height: high, class: small });
    const named = { class: "label", "aria-hidden": "true", text: label };
    return element("div", { class: "picture" }, image, label ? element("span", named) : null);
  }

  /** Width and height of an image in pixels; of files that are no PNG, SHOWN. */
  #sizeOf(url) {
    if (!this.sizes.has(url)) this.sizes.set(url, sizeOf(url) ?? { width: SHOWN, height: SHOWN });
    return this.sizes.get(url);
  }

  #problem(message) {
    const stopped = "Stopped. The model takes no notice of this turn.";
    const said = message.status === "stopped" ? stopped : message.error.sentence;
    const again = element("button", { type: "button", text: "Try again",
      "data-key": `${message.id}-again`, click: () => this.acts.again(message) });
    const key = element("button", { type: "button", text: "Give an API key",
      click: () => this.acts.key(message) });
    const mark = message.status === "failed" ? icon("warning") : null;
    return element("div", { class: `problem-card ${message.status}` }, mark,
      element("p", { text: said }), message.error?.wantsKey ? key : again);
  }

  #versions(message, versions) {
    if (versions.length < 2) return null;
    const at = versions.indexOf(message);
    const step = (name, label, to) => iconButton(name, label, () => this.acts.choose(versions[to]),
      { disabled: !versions[to], "data-key": `${message.parent}-${message.role}-${name}` });
    const named = { class: "versions", role: "group", "aria-label": "Versions of this message" };
    return element("div", named,
      step("back", "The version before", at - 1),
      element("span", { text: `${at + 1} / ${versions.length}` }),
      step("forward", "The next version", at + 1));
  }
}

function isNearEnd({ scrollHeight, scrollTop, clientHeight }) {
  return scrollHeight - scrollTop - clientHeight < NEAR_END;
}

/** Focus a button or, of two arrows where the way ends at it, the other one. */
function focusOrOther(button) {
  const able = button?.disabled ? button.parentElement.querySelector("button:enabled") : button;
  able?.focus();
}

/** Yield a paragraph of words, if there are any. */
function* words(text) {
  if (text.trim()) yield element("p", { class: "words", text: text.trim() });
}

/** Return width and height of a PNG as its header tells them (ISO/IEC 15948, 11.2.2); null of other
 * files. */
function sizeOf(url) {
  if (!url.startsWith("data:image/png;base64,")) return null;
  const head = url.slice(0, url.indexOf(",") + 1 + 32); // 24 bytes
  const bytes = atob(head.slice(head.indexOf(",") + 1));
  const number = (at) => [0, 1, 2, 3].reduce((sum, n) => sum * 256 + bytes.charCodeAt(at + n), 0);
  return { width: number(16), height: number(20) };
}
