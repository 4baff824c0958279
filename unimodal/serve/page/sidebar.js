// The list of conversations; on a narrow window it lies over the page when it is opened.

import { byId, element, iconButton } from "./dom.js";

export class Sidebar {
  constructor({ open, remove, begin }) {
    this.acts = { open, remove };
    byId("new").addEventListener("click", () => {
      this.show(false);
      begin();
    });
    byId("open-sidebar").addEventListener("click", () => this.show(true));
    for (const id of ["close-sidebar", "shade"]) {
      byId(id).addEventListener("click", () => this.show(false));
    }
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !byId("main").inert) return;
      event.preventDefault();
      this.show(false);
    });
    addEventListener("resize", () => this.#closeOnWide());
  }

  /** Close it where the window is no longer narrow, as when a telephone is turned: what opens and
   * closes it, which style.css hides then, could not. */
  #closeOnWide() {
    if (!byId("main").inert || byId("close-sidebar").checkVisibility()) return;
    this.show(false);
    byId("new").focus();
  }

  /** Open or close it on a narrow window; on a wide one it is always there. */
  show(isShown) {
    const button = byId("open-sidebar");
    const was = button.getAttribute("aria-expanded") === "true";
    byId("sidebar").classList.toggle("open", isShown);
    byId("shade").hidden = !isShown;
    byId("main").inert = isShown;
    button.setAttribute("aria-expanded", String(isShown));
    if (isShown) byId("close-sidebar").focus();
    else if (was) button.focus();
  }

  /** List conversations, the latest first. */
  list(conversations, current) {
    byId("conversations").replaceChildren(...conversations.map((one) => element("li", {},
      element("button", { type: "button", class: "row", text: one.title || "An image",
        "aria-current": one === current ? "true" : null, click: () => {
          this.show(false);
          this.acts.open(one);
        } }),
      iconButton("delete", `Delete “${one.title || "An image"}”`, () => this.acts.remove(one)))));
  }
}
