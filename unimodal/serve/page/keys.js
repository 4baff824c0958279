// Where a server's API key is given.

import { byId } from "./dom.js";

/** Ask for an API key until one is right; return whether one was given. */
export function askForKey(api) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  const problem = byId("key-problem");
  problem.hidden = true;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const over = new AbortController();
    const on = (target, name, act) => target.addEventListener(name, act, { signal: over.signal });
    const end = (isGiven) => {
      over.abort();
      dialog.close();
      resolve(isGiven);
    };
    on(byId("key-cancel"), "click", () => end(false));
    on(dialog, "cancel", () => end(false));
    on(byId("key-form"), "submit", async (event) => {
      event.preventDefault();
      const before = api.key;
      api.use(field.value.trim(), byId("remember").checked);
      try {
        await api.model();
        end(true);
      } catch (error) {
        api.use(before, false);
        problem.textContent = error.wantsKey ? "The server does not know this key." : error.message;
        problem.hidden = false;
        field.select();
      }
    });
  });
}
