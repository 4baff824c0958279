// Where a message is written, and images are given: by a button, dropped, or pasted.

import { byId, element, iconButton } from "./dom.js";
import { given } from "./images.js";

export class Composer {
  /** `boxes` says where things go; `send` is called with {text, images, boxes} and returns whether
   * the message was taken; `tell` with sentences, one a line, where images cannot be used. */
  constructor({ boxes, send, stop, editLast, tell }) {
    this.words = byId("words");
    this.boxes = boxes;
    this.images = [];
    this.most = Infinity; // images of a message, once the server has told
    this.tell = tell;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(send);
    });
    this.words.addEventListener("input", () => this.#fit());
    this.words.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#send(send);
      } else if (event.key === "ArrowUp" && !this.words.value) {
        if (editLast()) event.preventDefault();
      }
    });
    byId("stop").addEventListener("click", stop);
    byId("attach").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", ({ target }) => {
      this.give([...target.files]);
      target.value = "";
    });
    this.#takeDropped();
    document.addEventListener("paste", (event) => this.#takePasted(event));
  }

  /** Show whether an answer is in work: then the button stops it. */
  setWorking(isWorking) {
    const hadFocus = [byId("stop"), byId("send")].includes(document.activeElement);
    byId("stop").hidden = !isWorking;
    byId("send").hidden = isWorking;
    if (hadFocus) this.words.focus();
  }

  /** Add image files to the message. */
  async give(files) {
    const problems = [];
    for (const file of files) {
      if (this.images.length >= this.most) {
        problems.push(`${file.name} was left out: ${this.most} images are the most.`);
        continue;
      }
      try {
        this.add(await given(file), file.name);
      } catch (error) {
        problems.push(error.message);
      }
    }
    if (problems.length) this.tell(problems.join("\n"));
    this.words.focus();
  }

  /** Add an image to the message. */
  add(url, name = "image") {
    this.images.push({ url, name, position: 0 });
    this.#showImages();
  }

  #send(send) {
    const text = this.words.value.trim();
    const boxes = this.boxes.read();
    if (!boxes || (!text && !this.images.length && !boxes.length)) return;
    if (!send({ text, images: this.images, boxes })) return;
    this.words.value = "";
    this.images = [];
    this.boxes.clear();
    this.#showImages();
    this.#fit();
  }

  #fit() {
    this.words.style.height = "auto";
    this.words.style.height = `${this.words.scrollHeight}px`;
  }

  #showImages() {
    const list = byId("given");
    list.hidden = !this.images.length;
    list.replaceChildren(...this.images.map((image, index) => element("li", {},
      element("img", { src: image.url, alt: image.name }),
      iconButton("close", `Remove ${image.name}`, () => {
        this.images.splice(index, 1);
        this.#showImages();
        this.words.focus();
      }))));
  }

  /** Take pasted images, wherever on the page but in other fields. What a word processor copies is
   * words and a picture of these: in the message, the words alone are meant. */
  #takePasted(event) {
    const { files, types } = event.clipboardData;
    const field = event.target.closest?.("input, select, textarea, dialog");
    const isMeant = !field || (field === this.words && !types.includes("text/plain"));
    if (!files.length || !isMeant) return;
    event.preventDefault();
    this.give([...files]);
  }

  #takeDropped() {
    const shade = byId("drop");
    let depth = 0; // dragenter and dragleave come for every element on the way
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    const show = (change) => {
      depth = Math.max(0, depth + change);
      shade.hidden = depth === 0;
    };
    addEventListener("dragenter", (event) => hasFiles(event) && show(1));
    addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
    addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      show(-depth);
      this.give([...event.dataTransfer.files]);
    });
  }
}
