// Where a server's API key is given.

import { byId } from "./dom.js";

const SPELLED = /^[!-~]+$/; // as the server's keys are; a browser sends no other letters

/** Ask for an API key until one is right; return whether one was given. */
export function askForKey(api) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  const problem = byId("key-problem");
  const tell = (words) => {
    problem.textContent = words;
    problem.hidden = false;
    field.select();
  };
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
      const key = field.value.trim();
      if (!SPELLED.test(key)) {
        tell("An API key has only Latin letters, digits and signs, without spaces.");
        return;
      }
      try {
        await api.take(key, byId("remember").checked);
        end(true);
      } catch (error) {
        tell(error.wantsKey ? "The server does not know this key." : error.message);
      }
    });
  });
}
